"""`fraud reconcile`: `fraud verify`, and the ledger held against what it found."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from include.cli import verify_command as topics
from include.cli.exit_codes import exit_2_on_error
from include.cli.table import table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from include.verify.findings import LedgerVerdict, VerifyReport
    from include.verify.ledger_comparison import LedgerCheck

_COLUMNS = ("rows", "waiting", "unrecorded", "differing", "unfounded", "unbatched", "miscounted")
_MEANS = {
    "foreign": "on the output topic, and no prediction",
    "unrecorded": "published, and not in the ledger",
    "differing": "in the ledger otherwise than published",
    "unfounded": "in the ledger, and never published",
    "unbatched": "offsets of no batch record",
    "miscounted": "batches whose record counts other than the ledger",
}
_AGAIN = (
    "`fraud ledger rewind --partition P --to OFFSET`, with the place on the output topic that stands behind `at`; the "
    "next run of record_predictions restores them"
)
_WRITER = "another program writes to the output topic: see who has the right Write on it"
_MEND = {
    "missing": "the group passed over them: `fraud offsets set --partition P --to OFFSET` has them scored, and what "
    "lies behind them once more. Unless a note below says that predictions expired before they were recorded: then "
    "they came out",
    "double": f"unless somebody moved the group back on purpose, {_WRITER}. The ledger keeps the newest",
    "altered": _WRITER,
    "nowhere": f"{_WRITER}. The ledger has a row of each: delete it there",
    "foreign": f"{_WRITER}. The messages are kept on the topic that FRAUD_OUTPUT_DEAD_LETTER_TOPIC names",
    "unrecorded": _AGAIN,
    "differing": _AGAIN,
    "unfounded": "somebody else writes to the ledger: delete the rows there, and see who may",
    "miscounted": "rows were deleted or altered, or the batch's record was: unless an operator erased them, or a note "
    "says that predictions expired before they were recorded, somebody else writes to the ledger, or to the dead "
    "letters. `fraud ledger rewind` restores rows whose messages are still on the output topic",
    "unbatched": "their batch record was lost with the staging area, or is younger than the backup that the ledger was "
    "restored from, or their batches are older than the ledger: begin behind them, with --from",
}
HELP = (
    "Prove that each payment came out once and stands in the ledger as it came out.\n\n"
    "It does what `fraud verify` does; then each message of the output topic must be a row of the ledger, equal to it, "
    "each row such a message, and each offset in the record of a batch. Says of each partition that it is complete, or "
    "which offsets are not, and what to do. What the next run of record_predictions will record is only noted. Exit "
    "code 0: complete; 1: not; 2: it could not be checked, or nothing was due.\n\n"
    "The ledger is Airflow's connection ledger_db as AIRFLOW_CONN_LEDGER_DB has it, or LOGGER_SQL_URI."
)


def reconcile(
    from_: topics.From = None,
    to: topics.To = None,
    topic: topics.InputTopic = None,
    output: topics.OutputTopic = None,
    dead_letters: topics.DeadLetters = None,
    group: topics.Group = None,
    show: topics.Show = 20,
    json: topics.Json = False,
) -> None:
    """See HELP."""
    with exit_2_on_error("reconcile"):
        settings = topics.settings_of(topic, output, dead_letters, group)
        with _ledger(settings.group) as ledger:
            verdict = topics.judge(settings, from_, to, show, ledger)
    topics.tell(verdict, json=json, describe=described)


@contextmanager
def _ledger(group: str) -> Iterator[LedgerCheck]:
    from include.ledger.connection import LedgerConnection
    from include.ledger.schema import open_ledger
    from include.verify.ledger_comparison import LedgerCheck

    address = LedgerConnection.from_environment(os.environ)
    with open_ledger(address, "fraud reconcile") as connection:
        yield LedgerCheck(connection, str(address), group)


def described(verdict: VerifyReport) -> str:
    ledger = verdict.ledger
    if ledger is None:
        return topics.described(verdict)
    lines = [*topics.counted(verdict), f"ledger at {ledger.address}", "", *_counted(ledger), ""]
    for kind, means in {**topics.MEANS, **_MEANS}.items():
        source = verdict if kind in topics.MEANS else ledger
        if listed := topics.listed(source, kind, means):
            lines += [*listed, f"  to do: {_MEND[kind]}", ""]
    lines += [f"note: {note}" for note in verdict.notes]
    waiting = ledger.count("waiting")
    if waiting:
        lines.append(f"note: {waiting:,} wait for the next run of record_predictions")
    if verdict.is_whole and not verdict.count("due"):
        return "\n".join([*lines, "nothing was checked: these windows hold no payment"])
    for part, recorded in zip(verdict.partitions, ledger.partitions, strict=True):
        kinds = {kind: getattr(part, kind) for kind in topics.MEANS}
        kinds |= {kind: getattr(recorded, kind) for kind in _MEANS if kind != "foreign"}
        wrong = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items() if count)
        lines.append(f"{verdict.input_topic}/{part.partition}: {f'NOT complete: {wrong}' if wrong else 'complete'}")
    if verdict.is_whole:
        lines.append(f"complete: {verdict.count('due'):,} due, each came out once, and {ledger.count('rows'):,} rows")
    else:
        lines.append("NOT complete")
    return "\n".join(lines)


def _counted(ledger: LedgerVerdict) -> list[str]:
    rows = [["partition", *_COLUMNS]]
    rows += [[str(part.partition), *(f"{getattr(part, name):,}" for name in _COLUMNS)] for part in ledger.partitions]
    if len(ledger.partitions) > 1:
        rows.append(["all", *(f"{ledger.count(name):,}" for name in _COLUMNS)])
    return table(rows)
