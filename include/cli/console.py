"""Writes the report of a command to stdout, as text or JSON; errors, log lines and progress go to stderr.

A command writes its report to an `Output` twice: as lines and tables for people, and as one document for programs.
`TextOutput` writes only the former, `JsonOutput` only the latter. On a terminal, tables fit its width and results are
coloured unless NO_COLOR is set; elsewhere each line is plain text of any length, for `grep`.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Protocol, TextIO

import typer

JsonSwitch = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
ShowProgress = Callable[[str, float | None], None]
"""Show progress: a text, and the share that is done (0 to 1), or None if the end is unknown."""

GOOD, BAD = "green", "bold red"
# rich fits a table to the width of its console, which a file does not have.
_UNLIMITED_WIDTH = 100_000


class Output(Protocol):
    """The destination of a command's report."""

    def line(self, text: str = "", style: str = "") -> None:
        """Write a line of text; `style` is a rich style such as GOOD or BAD."""

    def table(self, titles: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
        """Write a table whose columns are aligned to the right. A cell that is None is empty."""

    def document(self, document: object) -> None:
        """Write the whole report as one JSON document. Call it once, at the end."""


class TextOutput:
    """Writes lines and tables; ignores the document."""

    def __init__(self) -> None:
        """Prepare for stdout as it is now."""
        from rich.console import Console

        width = None if sys.stdout.isatty() else _UNLIMITED_WIDTH
        self._console = Console(file=sys.stdout, width=width, markup=False, emoji=False, highlight=False)

    def line(self, text: str = "", style: str = "") -> None:
        """Write a line; the terminal wraps a long one."""
        with self._console.capture() as capture:
            self._console.out(printable(text), style=style or None, highlight=False)
        _write(sys.stdout, capture.get())

    def table(self, titles: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
        """Write a table. On a terminal that is too narrow, cells are folded."""
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in titles:
            table.add_column(title, justify="right", overflow="fold")
        for row in rows:
            table.add_row(*("" if cell is None else printable(str(cell)) for cell in row))
        with self._console.capture() as capture:
            self._console.print(table)
        _write(sys.stdout, "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines()))

    def document(self, document: object) -> None:
        """Do nothing: lines and tables have reported it."""


class JsonOutput:
    """Writes the document; ignores lines and tables."""

    def line(self, text: str = "", style: str = "") -> None:
        """Do nothing: the document reports it."""

    def table(self, titles: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
        """Do nothing: the document reports it."""

    def document(self, document: object) -> None:
        """Write the document indented. Whole numbers stay exact; decimals are texts, times are texts in ISO 8601."""
        import msgspec

        text = msgspec.json.format(msgspec.json.encode(document), indent=2).decode()
        # msgspec escapes only ASCII's control characters, but others control a terminal too.
        safe = (char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text)
        _write(sys.stdout, f"{''.join(safe)}\n")


def output(*, json: bool) -> Output:
    """Return the destination of a command's report, by its switch --json."""
    return JsonOutput() if json else TextOutput()


def printable(text: str) -> str:
    """Return the text without characters that could control a terminal or break the line.

    Values in payments come from outside and may contain them. They become U+FFFD.
    """
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def without_surrogates(argument: str) -> str:
    """Return an argument of the command line as valid Unicode: bytes that are not UTF-8 become question marks."""
    return argument.encode(errors="replace").decode()


def write_error(text: str) -> None:
    """Write lines to stderr."""
    _write(sys.stderr, "".join(f"{printable(line)}\n" for line in text.splitlines()))


class StderrHandler(logging.Handler):
    """Writes log records to stderr, above a progress line."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record."""
        write_error(self.format(record))


@contextmanager
def progress(seconds: float) -> Iterator[ShowProgress]:
    """Yield a function that shows progress on stderr.

    A terminal shows one line that is updated; elsewhere a line is written every `seconds` if the text has changed.
    """
    if not sys.stderr.isatty():
        yield _line_every(seconds)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, soft_wrap=True, markup=False, emoji=False, highlight=False)
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bar:
        task = bar.add_task("", total=None)

        def show(text: str, share: float | None = None) -> None:
            total = None if share is None else 1.0
            bar.update(task, description=printable(text), completed=share or 0.0, total=total)

        yield show


def _line_every(seconds: float) -> ShowProgress:
    shown, shown_at = "", time.monotonic()

    def show(text: str, share: float | None = None) -> None:
        nonlocal shown, shown_at
        now = time.monotonic()
        if text != shown and now - shown_at >= seconds:
            write_error(text)
            shown, shown_at = text, now

    return show


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        # The reader, such as `head`, has closed the pipe. The command still does its work and returns its exit code.
        # Later text goes to /dev/null, also when Python flushes the stream at exit.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
