"""Every command has help, reports invalid settings, and survives a reader that closes the pipe."""

from __future__ import annotations

import ast
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from dev.stack.part import BIN, ROOT
from include.cli.main import app

# With arguments that pass the command line's own checks.
COMMANDS = {
    "check": (),
    "topics": (),
    "produce simulate": ("--count", "1"),
    "produce csv": ("no-such-file.csv",),
    "produce api": ("http://127.0.0.1:9/", "--count", "1"),
    "train": ("--if-none",),
    "offsets show": (),
    "offsets set": ("--to", "earliest", "--yes"),
    "verify": (),
    "ledger migrate": (),
    "ledger show": (),
    "ledger rewind": ("--to", "earliest"),
    "reconcile": (),
    "trace": ("a-trans-num",),
    "confirm": ("--list",),
    "export-confirmed": (),
    "clean-history": (),
    "clean-disk": (),
    "env": ("--file", "/no-such-folder/.env"),
    "run": ("no-such-command",),
}
WITH_JSON = {
    "check", "topics", "train", "offsets show", "offsets set", "verify", "ledger show", "reconcile", "trace", "confirm",
    "export-confirmed",
}  # fmt: skip
FAILS_WITH_2 = {"verify", "reconcile", "trace", "confirm"}
# They become another process, which would be pytest.
EXECUTES = {"check", "export-confirmed", "run"}
# Every command reads one of these, or fails by its arguments.
BAD_SETTINGS = {"FRAUD_SHARDS": "none", "LOGGER_SQL_URI": "no-address", "COLUMNS": "80"}


def leaves(group: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, f"{path}{name} ")
        else:
            yield f"{path}{name}", command


REGISTERED = dict(leaves(typer.main.get_command(app)))


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Environment variables that no command can use."""
    home = {"HOME": str(tmp_path), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    return {"PATH": f"{BIN}:/usr/bin:/bin", **home, **BAD_SETTINGS}


@pytest.fixture
def invalid_environment(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if re.match("AIRFLOW|FRAUD|KAFKA|LOGGER|MLFLOW", name)]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def test_list_of_this_module_has_every_command():
    assert REGISTERED.keys() == COMMANDS.keys()
    with_json = {name for name, found in REGISTERED.items() if "--json" in [*(o for p in found.params for o in p.opts)]}
    assert with_json == WITH_JSON


@pytest.mark.parametrize("command", ["", "produce", "offsets", "ledger", *COMMANDS])
def test_help_fits_80_columns(command: str, invalid_environment: None):
    done = CliRunner().invoke(app, [*command.split(), "--help"])
    assert done.exit_code == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    words = " ".join(done.stdout.split())
    if command in COMMANDS and not command.startswith(("produce", "offsets show", "ledger show")):
        assert "Exit code" in words


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - EXECUTES))
def test_invalid_setting_gives_one_line_and_the_exit_code(command: str, invalid_environment: None):
    words = [*command.split(), *COMMANDS[command], *(["--json"] if command in WITH_JSON else [])]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == (2 if command in FAILS_WITH_2 else 1), done.output
    assert done.stdout == ""
    assert re.fullmatch(rf"fraud {command}: .+\n", done.stderr)


@pytest.mark.parametrize("command", sorted(EXECUTES))
def test_invalid_setting_of_an_airflow_process_gives_one_line(
    command: str, environment: dict[str, str], tmp_path: Path
):
    done = subprocess.run(
        [BIN / "fraud", *command.split(), *COMMANDS[command]],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    (line,) = (done.stderr or done.stdout).splitlines()[:1]
    assert line.startswith((f"fraud {command}: ", "WRONG  settings: FRAUD_SHARDS='none'"))
    assert list(tmp_path.iterdir()) == [], "it left something in this user's home"


@pytest.mark.parametrize(
    ("words", "code"),
    [(("check", "--json"), 1), (("env", "--file", ".env"), 0), (("produce", "simulate", "--print"), 0), (("-h",), 2)],
)
def test_closed_pipe_keeps_the_exit_code(
    words: tuple[str, ...], code: int, environment: dict[str, str], tmp_path: Path
):
    """The exit code stays the command's own. `produce` is left out, because it would never end."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [BIN / "fraud", *words],
            env=environment, cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=120, check=False,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert done.returncode == code, done.stderr
    assert not re.search("Traceback|Broken|Exception", done.stderr)


@pytest.mark.parametrize(
    ("has_stack", "servers", "hinted"), [(True, "", True), (True, "127.0.0.1:9", False), (False, "", False)]
)
def test_check_names_the_stack_variables_in_a_folder_with_a_stack(
    has_stack: bool,
    servers: str,
    hinted: bool,
    invalid_environment: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", servers)
    monkeypatch.setattr("include.cli.check_command.run_airflow_module", lambda module, *, json: None)
    if has_stack:
        (tmp_path / ".local").mkdir()
        (tmp_path / ".local/stack.env").touch()
    done = CliRunner().invoke(app, ["check"])
    assert ("set -a; . .local/stack.env; set +a" in done.stderr) == hinted


def test_commands_write_only_through_the_console():
    """The console handles closed pipes, JSON and control characters in payments."""
    for path in sorted((ROOT / "include/cli").glob("*.py")):
        if path.name == "console.py":
            continue
        calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}
        assert not calls & {"print", "typer.echo", "sys.stdout.write", "sys.stderr.write"}, path.name
