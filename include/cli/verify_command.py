"""`fraud verify`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from include.cli.exit_codes import exit_2_on_error
from include.cli.table import table

if TYPE_CHECKING:
    from collections.abc import Callable

    from include.settings import Settings
    from include.verify.findings import LedgerVerdict, VerifyReport
    from include.verify.ledger_comparison import LedgerCheck

_COLUMNS = ("start", "end", "messages", "due", "scored", "dead_letters", "missing", "double", "altered", "nowhere")
_TITLES = ("from", "to", "messages", "due", "scored", "dead", "missing", "double", "altered", "nowhere")
MEANS = {
    "missing": "never came out",
    "double": "came out more than once",
    "altered": "came out other than it came in",
    "nowhere": "came out, but no such payment came in",
}


# A docstring would keep its line ends in the terminal.
HELP = (
    "Prove that each payment of the input topic came out exactly once, as it came in.\n\n"
    "For a window of the input topic's offsets, each payment must be once in the output topic or among the dead "
    "letters, as a reader of committed messages sees them. What came of other windows is passed over. Exit code 0: "
    "whole; 1: something is missing, double, altered or from nowhere; 2: it could not be checked, or nothing was "
    "due.\n\n"
    "The output is read from an hour before the window's earliest message on, and all of it where something is "
    "missing. Only the topics as they are now are compared: after one was deleted and made again, give --from and --to "
    "so that the output's messages of that window can only be of this topic. Payments that an operator had scored "
    "again on purpose count as double."
)


From = Annotated[
    list[str] | None,
    typer.Option(
        "--from",
        metavar="[PARTITION:]OFFSET|TIME",
        help="First offset of the window, or a time (2026-01-31T08:00, UTC unless it says otherwise); repeat it for "
        "several partitions. Default: the first retained.",
    ),
]
To = Annotated[
    list[str] | None,
    typer.Option(
        "--to",
        metavar="[PARTITION:]OFFSET|TIME",
        help="End of the window, itself not in it. Default: where the group is.",
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
Show = Annotated[int, typer.Option(min=0, help="How many of each kind of finding to list.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def verify(
    from_: From = None,
    to: To = None,
    topic: InputTopic = None,
    output: OutputTopic = None,
    dead_letters: DeadLetters = None,
    group: Group = None,
    show: Show = 20,
    json: Json = False,
) -> None:
    """Prove that each payment of the input topic came out exactly once, as it came in."""
    with exit_2_on_error("verify"):
        verdict = judge(settings_of(topic, output, dead_letters, group), from_, to, show)
    tell(verdict, json=json, describe=described)


def settings_of(topic: str | None, output: str | None, dead_letters: str | None, group: str | None) -> Settings:
    from include.settings import Settings

    return Settings.from_environment().override(
        input_topic=topic, output_topic=output, dead_letter_topic=dead_letters, group=group
    )


def judge(
    settings: Settings, start: list[str] | None, end: list[str] | None, show: int, ledger: LedgerCheck | None = None
) -> VerifyReport:
    from include.kafka.client_config import client_settings
    from include.verify.verification import verify as verify_topics
    from include.verify.window import Bounds

    return verify_topics(
        client_settings(os.environ),
        settings,
        start=Bounds.parse("--from", start or []),
        end=Bounds.parse("--to", end or []),
        show=show,
        say=lambda line: typer.echo(line, err=True),
        ledger=ledger,
    )


def tell(verdict: VerifyReport, *, json: bool, describe: Callable[[VerifyReport], str]) -> None:
    """And ends with the exit code."""
    if json:
        import msgspec

        whole = {"whole": verdict.is_whole} | msgspec.to_builtins(verdict)
        typer.echo(msgspec.json.format(msgspec.json.encode(whole), indent=2))
    else:
        typer.echo(describe(verdict))
    raise typer.Exit(1 if not verdict.is_whole else 0 if verdict.count("due") else 2)


def counted(verdict: VerifyReport) -> list[str]:
    """What was compared, and the counts by partition."""
    rows = [["partition", *_TITLES]]
    rows += [
        [str(part.partition), *(f"{getattr(part, column):,}" for column in _COLUMNS)] for part in verdict.partitions
    ]
    if len(verdict.partitions) > 1:
        rows.append(["all", "", "", *(f"{verdict.count(column):,}" for column in _COLUMNS[2:])])
    return [
        f"{verdict.input_topic} to {verdict.output_topic} and {verdict.dead_letter_topic}, group {verdict.group}",
        "",
        *table(rows),
        "",
    ]


def listed(source: VerifyReport | LedgerVerdict, kind: str, means: str) -> list[str]:
    """The findings of a kind; no line where there are none."""
    count, findings = source.count(kind), source.found(kind)
    if not count:
        return []
    lines = [f"{kind.upper()}: {count:,} {means}", *(f"  {finding}" for finding in findings)]
    return [*lines, f"  … and {count - len(findings):,} more (--show)"] if count > len(findings) else lines


def described(verdict: VerifyReport) -> str:
    lines = counted(verdict)
    for kind, means in MEANS.items():
        if found := listed(verdict, kind, means):
            lines += [*found, ""]
    lines += [f"note: {note}" for note in verdict.notes]
    if verdict.is_whole and not verdict.count("due"):
        lines.append("nothing was checked: these windows hold no payment")
    elif verdict.is_whole:
        lines.append(f"whole: {verdict.count('due'):,} due, each came out exactly once, as it came in")
    else:
        kinds = ", ".join(f"{verdict.count(kind):,} {kind}" for kind in MEANS if verdict.count(kind))
        lines.append(f"NOT whole: {kinds}")
    return "\n".join(lines)
