"""The `fraud` command: one sub-command a module. Each imports what it needs only when it runs, so `--help` is quick."""

from __future__ import annotations

import sys

import typer

from include.cli import clean_commands, ledger_commands, offsets_commands, produce_command
from include.cli.check_command import HELP as CHECK_HELP
from include.cli.check_command import check
from include.cli.confirm_command import HELP as CONFIRM_HELP
from include.cli.confirm_command import confirm
from include.cli.env_command import env
from include.cli.export_command import HELP as EXPORT_HELP
from include.cli.export_command import export_confirmed
from include.cli.reconcile_command import HELP as RECONCILE
from include.cli.reconcile_command import reconcile
from include.cli.run_command import HELP as RUN
from include.cli.run_command import SETTINGS as RUN_SETTINGS
from include.cli.run_command import run
from include.cli.topics_command import HELP as TOPICS
from include.cli.topics_command import topics
from include.cli.trace_command import HELP as TRACE
from include.cli.trace_command import trace
from include.cli.train_command import train
from include.cli.verify_command import HELP, verify
from include.errors import FraudError

app = typer.Typer(
    name="fraud",
    help="Fraud scoring of card payments: check the settings, feed the input topic, train models, prove what came out, "
    "move on or back, clean up.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command()(train)
app.command(help=CHECK_HELP)(check)
app.command(help=HELP)(verify)
app.command(help=TRACE)(trace)
app.command(help=CONFIRM_HELP)(confirm)
app.command(help=EXPORT_HELP)(export_confirmed)
app.command(help=RECONCILE)(reconcile)
app.command(help=clean_commands.HISTORY)(clean_commands.clean_history)
app.command(help=clean_commands.DISK)(clean_commands.clean_disk)
app.command(help=TOPICS)(topics)
app.command()(env)
app.command(help=RUN, context_settings=RUN_SETTINGS)(run)
app.add_typer(produce_command.app)
app.add_typer(offsets_commands.app)
app.add_typer(ledger_commands.app)


@app.callback()
def fraud() -> None:
    """Keeps a sub-command's name needed, however few there are."""


def main() -> None:
    """Errors made on purpose are one line on stderr and exit code 1; anything else keeps its traceback."""
    try:
        app()
    except FraudError as error:
        sys.exit(f"fraud: {error}")


if __name__ == "__main__":
    main()
