"""`fraud verify`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from include.cli.table import table

if TYPE_CHECKING:
    from include.verify.verdict import Verdict

_COLUMNS = ("start", "end", "messages", "due", "scored", "dead_letters", "missing", "double", "altered", "nowhere")
_TITLES = ("from", "to", "messages", "due", "scored", "dead", "missing", "double", "altered", "nowhere")
_MEANS = {
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


def verify(
    from_: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="[PARTITION:]OFFSET",
            help="First offset of the window; repeat it for several partitions. Default: the first retained.",
        ),
    ] = None,
    to: Annotated[
        list[str] | None,
        typer.Option(
            "--to",
            metavar="[PARTITION:]OFFSET",
            help="End of the window, itself not in it. Default: where the group is.",
        ),
    ] = None,
    topic: Annotated[str | None, typer.Option(help="Input topic. Default: FRAUD_INPUT_TOPIC, else topic_1.")] = None,
    output: Annotated[str | None, typer.Option(help="Default: FRAUD_OUTPUT_TOPIC, else topic_2.")] = None,
    dead_letters: Annotated[
        str | None, typer.Option(help="Default: FRAUD_DEAD_LETTER_TOPIC, else topic_1_dead_letters.")
    ] = None,
    group: Annotated[str | None, typer.Option(help="Default: FRAUD_GROUP, else fraud_scoring.")] = None,
    show: Annotated[int, typer.Option(min=0, help="How many of each kind of finding to list.")] = 20,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Prove that each payment of the input topic came out exactly once, as it came in."""
    from include.errors import FraudError

    try:
        verdict = _verify(from_ or [], to or [], topic, output, dead_letters, group, show)
    except FraudError as error:
        typer.echo(f"fraud verify: {error}", err=True)
        raise typer.Exit(2) from None
    if json:
        import msgspec

        whole = {"whole": verdict.is_whole} | msgspec.to_builtins(verdict)
        typer.echo(msgspec.json.format(msgspec.json.encode(whole), indent=2))
    else:
        typer.echo(described(verdict))
    raise typer.Exit(1 if not verdict.is_whole else 0 if verdict.count("due") else 2)


def _verify(
    start: list[str],
    end: list[str],
    topic: str | None,
    output: str | None,
    dead_letters: str | None,
    group: str | None,
    show: int,
) -> Verdict:
    from dataclasses import replace

    from include.kafka.config import client_settings
    from include.settings import Settings
    from include.verify.verify import verify as verify_topics
    from include.verify.window import Bounds

    settings = Settings.from_environment()
    settings = replace(
        settings,
        input_topic=topic or settings.input_topic,
        output_topic=output or settings.output_topic,
        dead_letter_topic=dead_letters or settings.dead_letter_topic,
        group=group or settings.group,
    )
    return verify_topics(
        client_settings(os.environ),
        settings,
        start=Bounds.parse("--from", start),
        end=Bounds.parse("--to", end),
        show=show,
        say=lambda line: typer.echo(line, err=True),
    )


def described(verdict: Verdict) -> str:
    rows = [["partition", *_TITLES]]
    rows += [
        [str(part.partition), *(f"{getattr(part, column):,}" for column in _COLUMNS)] for part in verdict.partitions
    ]
    if len(verdict.partitions) > 1:
        rows.append(["all", "", "", *(f"{verdict.count(column):,}" for column in _COLUMNS[2:])])
    lines = [
        f"{verdict.input_topic} to {verdict.output_topic} and {verdict.dead_letter_topic}, group {verdict.group}",
        "",
        *table(rows),
        "",
    ]
    for kind, means in _MEANS.items():
        count, listed = verdict.count(kind), verdict.found(kind)
        if not count:
            continue
        lines += [f"{kind.upper()}: {count:,} {means}", *(f"  {finding}" for finding in listed)]
        if count > len(listed):
            lines.append(f"  … and {count - len(listed):,} more (--show)")
        lines.append("")
    lines += [f"note: {note}" for note in verdict.notes]
    if verdict.is_whole and not verdict.count("due"):
        lines.append("nothing was checked: these windows hold no payment")
    elif verdict.is_whole:
        lines.append(f"whole: {verdict.count('due'):,} due, each came out exactly once, as it came in")
    else:
        kinds = ", ".join(f"{verdict.count(kind):,} {kind}" for kind in _MEANS if verdict.count(kind))
        lines.append(f"NOT whole: {kinds}")
    return "\n".join(lines)
