"""The `fraud` command: one sub-command a module. Each imports what it needs only when it runs, so `--help` is quick."""

from __future__ import annotations

import sys

import typer

from include.cli import clean, ledger, offsets, produce
from include.cli.check import HELP as CHECK_HELP
from include.cli.check import check
from include.cli.confirm import HELP as CONFIRM_HELP
from include.cli.confirm import confirm
from include.cli.env import env
from include.cli.export import HELP as EXPORT_HELP
from include.cli.export import export_confirmed
from include.cli.reconcile import HELP as RECONCILE
from include.cli.reconcile import reconcile
from include.cli.run import HELP as RUN
from include.cli.run import SETTINGS as RUN_SETTINGS
from include.cli.run import run
from include.cli.topics import HELP as TOPICS
from include.cli.topics import topics
from include.cli.trace import HELP as TRACE
from include.cli.trace import trace
from include.cli.train import train
from include.cli.verify import HELP, verify
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
app.command(help=clean.HISTORY)(clean.clean_history)
app.command(help=clean.DISK)(clean.clean_disk)
app.command(help=TOPICS)(topics)
app.command()(env)
app.command(help=RUN, context_settings=RUN_SETTINGS)(run)
app.add_typer(produce.app)
app.add_typer(offsets.app)
app.add_typer(ledger.app)


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
