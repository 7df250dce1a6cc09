"""The commands `fraud verify`, which compares the topics, and `fraud reconcile`, which also compares the ledger."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from include.cli.console import JsonSwitch, output, progress
from include.cli.registration import NOT_ANSWERED, NOT_GOOD, OK
from include.cli.verify_text import write_report

if TYPE_CHECKING:
    from collections.abc import Iterator

    from include.settings import Settings
    from include.verify.findings import VerifyReport
    from include.verify.ledger_comparison import LedgerComparison

_PROGRESS_SECONDS = 5.0

From = Annotated[
    list[str] | None,
    typer.Option(
        "--from",
        metavar="[PARTITION:]OFFSET|TIME",
        help="First offset of the window, or a time (2026-01-31T08:00; UTC unless it has a time zone); repeat it for "
        "several partitions. Default: the first offset retained.",
    ),
]
To = Annotated[
    list[str] | None,
    typer.Option(
        "--to",
        metavar="[PARTITION:]OFFSET|TIME",
        help="End of the window, exclusive. Default: the group's committed offset.",
    ),
]
InputTopic = Annotated[
    str | None, typer.Option("--topic", help="Input topic. Default: FRAUD_INPUT_TOPIC, else topic_1.")
]
OutputTopic = Annotated[str | None, typer.Option("--output", help="Default: FRAUD_OUTPUT_TOPIC, else topic_2.")]
DeadLetters = Annotated[
    str | None,
    typer.Option("--dead-letters", help="Default: FRAUD_DEAD_LETTER_TOPIC, else topic_1_dead_letters."),
]
Group = Annotated[str | None, typer.Option(help="Default: FRAUD_GROUP, else fraud_scoring.")]
Show = Annotated[int, typer.Option(min=0, help="Maximum number of findings to list of each kind.")]


def verify(
    from_: From = None,
    to: To = None,
    topic: InputTopic = None,
    output_topic: OutputTopic = None,
    dead_letters: DeadLetters = None,
    group: Group = None,
    show: Show = 20,
    json: JsonSwitch = False,
) -> None:
    """Prove that each payment of the input topic came out exactly once, as it came in.

    In a window of the input topic's offsets, each payment must be once on the output topic or among the dead letters,
    as a reader of committed messages sees them. Output of other windows is ignored. The output is read from an hour
    before the window's earliest message, and completely if something is missing.

    The command compares the topics as they are now: after a topic was deleted and recreated, give --from and --to so
    that only output of the new topic is in the window. Payments that an operator had scored again count as double.

    Exit code 0: whole; 1: something is missing, double, altered or from nowhere; 2: it could not be checked, or the
    window holds no payment.
    """
    settings = _settings(topic, output_topic, dead_letters, group)
    _report(_verify(settings, from_, to, show), json=json)


def reconcile(
    from_: From = None,
    to: To = None,
    topic: InputTopic = None,
    output_topic: OutputTopic = None,
    dead_letters: DeadLetters = None,
    group: Group = None,
    show: Show = 20,
    json: JsonSwitch = False,
) -> None:
    """Prove that each payment came out once and is in the ledger as it came out.

    It does what `fraud verify` does. In addition each message of the output topic must equal a row of the ledger, each
    row a message, and each offset must be in a batch record. The command reports for each partition that it is
    complete, or which offsets are not and what to do. Predictions that the next run of record_predictions will record
    are only counted.

    The ledger is Airflow's connection ledger_db in AIRFLOW_CONN_LEDGER_DB, else LOGGER_SQL_URI.

    Exit code 0: complete; 1: not complete; 2: it could not be checked, or the window holds no payment.
    """
    settings = _settings(topic, output_topic, dead_letters, group)
    with _ledger(settings.group) as ledger:
        report = _verify(settings, from_, to, show, ledger)
    _report(report, json=json)


def _settings(topic: str | None, output_topic: str | None, dead_letters: str | None, group: str | None) -> Settings:
    from include.settings import Settings

    return Settings.from_environment().override(
        input_topic=topic, output_topic=output_topic, dead_letter_topic=dead_letters, group=group
    )


@contextmanager
def _ledger(group: str) -> Iterator[LedgerComparison]:
    from include.ledger.connection import LedgerConnection
    from include.ledger.schema import open_ledger
    from include.verify.ledger_comparison import LedgerComparison

    address = LedgerConnection.from_environment(os.environ)
    with open_ledger(address, "fraud reconcile") as connection:
        yield LedgerComparison(connection, str(address), group)


def _verify(
    settings: Settings,
    start: list[str] | None,
    end: list[str] | None,
    show: int,
    ledger: LedgerComparison | None = None,
) -> VerifyReport:
    from include.kafka.cluster import Cluster
    from include.verify.verification import verify as verify_topics
    from include.verify.window import Bounds

    bounds = Bounds.parse("--from", start or []), Bounds.parse("--to", end or [])
    with progress(_PROGRESS_SECONDS) as show_progress:
        return verify_topics(
            Cluster.from_environment(),
            settings,
            start=bounds[0],
            end=bounds[1],
            show=show,
            on_progress=show_progress,
            ledger=ledger,
        )


def _report(report: VerifyReport, *, json: bool) -> None:
    import msgspec

    out = output(json=json)
    write_report(out, report)
    out.document({"whole": report.is_whole} | msgspec.to_builtins(report))
    raise typer.Exit(NOT_GOOD if not report.is_whole else OK if report.count("due") else NOT_ANSWERED)
