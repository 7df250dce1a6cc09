"""The console: text and JSON, wide and narrow terminals, pipes, and control characters."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from decimal import Decimal

import pytest

from dev.stack.part import ROOT
from include.cli.console import JsonOutput, TextOutput, printable, progress, write_error

CARD = 9_007_199_254_740_993
EVIL = "a\x1b[2J\x9b31m\u202eb\nconfirmed   fraud"
REPORT = """
from include.cli.console import BAD, TextOutput, progress, write_error
out = TextOutput()
out.table(("partition", "first", "batch"), [(0, 1, "b" * 60), (10, None, None)])
out.line("NOT whole: " + "1 missing, " * 20, BAD)
with progress(0) as show:
    show("topic_1: 5 of 10 read", 0.5)
    write_error("a log line")
"""


def on_terminal(code: str, **variables: str) -> str:
    """Return what a terminal shows of stdout and stderr."""
    ours, theirs = pty.openpty()
    environment = {name: os.environ[name] for name in ("PATH", "HOME")} | {"TERM": "xterm", **variables}
    try:
        done = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=theirs, stderr=theirs)
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 65_536):
                shown += part
        except OSError:  # Linux: the other side is closed
            pass
        assert done.wait(30) == 0, shown.decode()
    finally:
        os.close(ours)
    return shown.decode()


def test_pipe_gets_plain_lines_of_any_length(capsys: pytest.CaptureFixture[str]):
    exec(REPORT)
    shown = capsys.readouterr()
    result = "NOT whole: " + "1 missing, " * 20
    assert shown.out.splitlines() == [
        f"partition  first{' ' * 57}batch", f"        0      1  {'b' * 60}", "       10", result
    ]  # fmt: skip
    assert shown.err.splitlines() == ["topic_1: 5 of 10 read", "a log line"]


@pytest.mark.parametrize("columns", [40, 200])
def test_table_fits_the_terminal(columns: int):
    lines = re.sub("\x1b.*?m", "", on_terminal(REPORT, COLUMNS=str(columns), NO_COLOR="1")).splitlines()
    table = lines[: next(number for number, line in enumerate(lines) if line.startswith("NOT whole"))]
    assert max(map(len, table)) <= columns
    assert "".join(table).count("b") - "".join(table).count("batch") == 60, "nothing is cut off"


def test_terminal_shows_colours_and_log_lines_above_progress():
    shown = on_terminal(REPORT, COLUMNS="100")
    assert "\x1b[1;31mNOT whole" in shown
    assert "5 of 10 read" in shown
    assert "\na log line" in shown.replace("\x1b[2K", "").replace("\r", "\n")
    assert "\x1b[1;31m" not in on_terminal(REPORT, COLUMNS="100", NO_COLOR="1")


def test_json_is_one_exact_document(capsys: pytest.CaptureFixture[str]):
    out = JsonOutput()
    out.line("for people")
    out.table(("n",), [(1,)])
    out.document({"card": CARD, "amount": Decimal("0.10"), "merchant": EVIL})
    shown = capsys.readouterr().out
    assert json.loads(shown) == {"card": CARD, "amount": "0.10", "merchant": EVIL}
    assert all(sign.isprintable() or sign == "\n" for sign in shown)


def test_values_of_a_payment_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]):
    out = TextOutput()
    out.line(EVIL)
    out.table(("merchant",), [(EVIL,), ("[red]x[/red] :smile:",)])
    write_error(printable(EVIL))
    shown = capsys.readouterr()
    safe = "a\ufffd[2J\ufffd31m\ufffdb\ufffdconfirmed   fraud"
    assert [line.strip() for line in shown.out.splitlines()] == [safe, "merchant", safe, "[red]x[/red] :smile:"]
    assert shown.err == f"{safe}\n"


def test_progress_in_a_pipe_is_a_line_per_interval(capsys: pytest.CaptureFixture[str]):
    with progress(0) as show:
        for text in ("one", "one", "two"):
            show(text, None)
    with progress(1_000) as show:
        show("three", None)
    assert capsys.readouterr().err == "one\ntwo\n"
