"""The `fraud` command. Its sub-commands import heavy modules only when they run, so that `--help` is quick."""

from __future__ import annotations

import typer

from include.cli import ledger_commands, offsets_commands, produce_commands
from include.cli.check_command import check
from include.cli.clean_commands import clean_disk, clean_history
from include.cli.confirm_command import confirm
from include.cli.env_command import env
from include.cli.export_command import export_confirmed
from include.cli.registration import NOT_ANSWERED, add_command
from include.cli.run_command import run
from include.cli.topics_command import topics
from include.cli.trace_command import trace
from include.cli.train_command import train
from include.cli.verify_commands import reconcile, verify

app = typer.Typer(
    name="fraud",
    help="Fraud scoring of card payments: check the settings, send payments, train models, prove what came out, "
    "trace and confirm payments, set offsets, clean up.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
add_command(app, check)
add_command(app, topics)
app.add_typer(produce_commands.app)
add_command(app, train)
app.add_typer(offsets_commands.app)
add_command(app, verify, error_code=NOT_ANSWERED)
app.add_typer(ledger_commands.app)
add_command(app, reconcile, error_code=NOT_ANSWERED)
add_command(app, trace, error_code=NOT_ANSWERED)
add_command(app, confirm, error_code=NOT_ANSWERED)
add_command(app, export_confirmed)
add_command(app, clean_history)
add_command(app, clean_disk)
add_command(app, env)
# Options after the command to run belong to that command.
add_command(app, run, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})


@app.callback()
def fraud() -> None:
    """Make typer require a sub-command."""


def main() -> None:
    """Run the `fraud` command."""
    app(prog_name="fraud")


if __name__ == "__main__":
    main()
