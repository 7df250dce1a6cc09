"""Writes the report of `fraud verify` and `fraud reconcile` as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from include.cli.console import BAD, GOOD, Output

if TYPE_CHECKING:
    from include.verify.findings import LedgerReport, VerifyReport

_COLUMNS = ("start", "end", "messages", "due", "scored", "dead_letters", "missing", "double", "altered", "nowhere")
_TITLES = ("from", "to", "messages", "due", "scored", "dead", "missing", "double", "altered", "nowhere")
_LEDGER_COLUMNS = ("rows", "waiting", "unrecorded", "differing", "unfounded", "unbatched", "miscounted")
_TOPIC_KINDS = {
    "missing": "never came out",
    "double": "came out more than once",
    "altered": "came out changed",
    "nowhere": "came out, but no such payment came in",
}
_LEDGER_KINDS = {
    "foreign": "on the output topic, but not a prediction",
    "unrecorded": "published, but not in the ledger",
    "differing": "in the ledger with other values than published",
    "unfounded": "in the ledger, but never published",
    "unbatched": "offsets in no batch record",
    "miscounted": "batches whose record counts differ from the ledger",
}
_REWIND = (
    "`fraud ledger rewind --partition P --to OFFSET`, with the output topic's partition and offset shown after `at`; "
    "the next run of record_predictions restores them"
)
_OTHER_WRITER = "another program writes to the output topic: check who has the right Write on it"
_REMEDIES = {
    "missing": "the group skipped them: `fraud offsets set --partition P --to OFFSET` scores them, and what follows "
    "them once more. Unless a note below says that predictions expired before they were recorded: then they came out",
    "double": f"unless an operator moved the group back on purpose, {_OTHER_WRITER}. The ledger keeps the newest",
    "altered": _OTHER_WRITER,
    "nowhere": f"{_OTHER_WRITER}. The ledger has a row of each: delete it there",
    "foreign": f"{_OTHER_WRITER}. The messages are kept on the topic that FRAUD_OUTPUT_DEAD_LETTER_TOPIC names",
    "unrecorded": _REWIND,
    "differing": _REWIND,
    "unfounded": "another program writes to the ledger: delete the rows there, and check who may write",
    "miscounted": "rows or the batch's record were deleted or altered: unless an operator erased them, or a note "
    "says that predictions expired before they were recorded, another program writes to the ledger or to the dead "
    "letters. `fraud ledger rewind` restores rows whose messages are still on the output topic",
    "unbatched": "their batch record was lost with the staging area, or is newer than the backup that the ledger was "
    "restored from, or their batches are older than the ledger: begin after them, with --from",
}


def write_report(out: Output, report: VerifyReport) -> None:
    """Write counts, findings and notes; the last line is the result."""
    ledger = report.ledger
    out.line(f"{report.input_topic} to {report.output_topic} and {report.dead_letter_topic}, group {report.group}")
    out.line()
    _write_topic_counts(out, report)
    out.line()
    if ledger is not None:
        out.line(f"ledger at {ledger.address}")
        out.line()
        _write_ledger_counts(out, ledger)
        out.line()
    for kind, meaning in _TOPIC_KINDS.items():
        _write_findings(out, report, kind, meaning, remedy=ledger is not None)
    if ledger is not None:
        for kind, meaning in _LEDGER_KINDS.items():
            _write_findings(out, ledger, kind, meaning, remedy=True)
    for note in report.notes:
        out.line(f"note: {note}")
    if report.is_whole and not report.count("due"):
        out.line("nothing was checked: the window holds no payment", BAD)
    elif ledger is not None:
        _write_ledger_result(out, report, ledger)
    elif report.is_whole:
        out.line(f"whole: {report.count('due'):,} due, each came out exactly once, as it came in", GOOD)
    else:
        kinds = ", ".join(f"{report.count(kind):,} {kind}" for kind in _TOPIC_KINDS if report.count(kind))
        out.line(f"NOT whole: {kinds}", BAD)


def _write_topic_counts(out: Output, report: VerifyReport) -> None:
    rows = [[str(part.partition), *(f"{getattr(part, column):,}" for column in _COLUMNS)] for part in report.partitions]
    if len(rows) > 1:
        rows.append(["all", "", "", *(f"{report.count(column):,}" for column in _COLUMNS[2:])])
    out.table(("partition", *_TITLES), rows)


def _write_ledger_counts(out: Output, ledger: LedgerReport) -> None:
    rows = [
        [str(part.partition), *(f"{getattr(part, name):,}" for name in _LEDGER_COLUMNS)] for part in ledger.partitions
    ]
    if len(rows) > 1:
        rows.append(["all", *(f"{ledger.count(name):,}" for name in _LEDGER_COLUMNS)])
    out.table(("partition", *_LEDGER_COLUMNS), rows)


def _write_findings(out: Output, source: VerifyReport | LedgerReport, kind: str, meaning: str, *, remedy: bool) -> None:
    count, findings = source.count(kind), source.findings(kind)
    if not count:
        return
    out.line(f"{kind.upper()}: {count:,} {meaning}", BAD)
    for finding in findings:
        out.line(f"  {finding}")
    if count > len(findings):
        out.line(f"  … and {count - len(findings):,} more (--show)")
    if remedy:
        out.line(f"  to do: {_REMEDIES[kind]}")
    out.line()


def _write_ledger_result(out: Output, report: VerifyReport, ledger: LedgerReport) -> None:
    for part, recorded in zip(report.partitions, ledger.partitions, strict=True):
        counts = {kind: getattr(part, kind) for kind in _TOPIC_KINDS}
        counts |= {kind: getattr(recorded, kind) for kind in _LEDGER_KINDS if kind != "foreign"}
        wrong = ", ".join(f"{count:,} {kind}" for kind, count in counts.items() if count)
        out.line(f"{report.input_topic}/{part.partition}: {f'NOT complete: {wrong}' if wrong else 'complete'}")
    waiting = ledger.count("waiting")
    later = f"; {waiting:,} to be recorded by the next run of record_predictions" if waiting else ""
    if report.is_whole:
        rows = f"{ledger.count('rows'):,} rows in the ledger"
        out.line(f"complete: {report.count('due'):,} due, each came out once, {rows}{later}", GOOD)
    else:
        kinds = [kind for kind in _TOPIC_KINDS if report.count(kind)]
        kinds += [kind for kind in _LEDGER_KINDS if ledger.count(kind)]
        out.line(f"NOT complete: {', '.join(kinds)}{later}", BAD)
