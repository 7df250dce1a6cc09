"""`fraud offsets`: where the group stands on the input topic, and how an operator moves it."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated

import typer

from include.cli.table import table

if TYPE_CHECKING:
    from include.batch.group_offsets import GroupOffsets, PartitionOffsets
    from include.kafka.group_admin import OffsetMove

app = typer.Typer(
    name="offsets", help="Show or set where the scoring goes on in the input topic.", no_args_is_help=True
)

Partitions = Annotated[
    list[int] | None, typer.Option("--partition", help="Only this partition; repeat it for several. Default: all.")
]
TopicName = Annotated[str | None, typer.Option("--topic", help="Default: FRAUD_INPUT_TOPIC, else topic_1.")]
Group = Annotated[str | None, typer.Option(help="Default: FRAUD_GROUP, else fraud_scoring.")]

_TITLES = ("partition", "first", "committed", "end", "waiting", "batch", "committed at")


@app.command()
def show(
    topic: TopicName = None,
    group: Group = None,
    json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Where the group stands: first offset retained, committed offset, end, and which batch committed it when."""
    with _opened(topic, group) as here:
        rows = here.standings()
    if json:
        import msgspec

        plain = [msgspec.to_builtins(row) | {"waiting": row.waiting} for row in rows]
        typer.echo(msgspec.json.format(msgspec.json.encode(plain), indent=2))
        return
    _print(
        [
            _TITLES,
            *(
                (row.partition, row.first, _place(row), row.end, row.waiting, row.batch, row.committed_at)
                for row in rows
            ),
        ]
    )


@app.command(
    name="set",
    help="Decide where the scoring goes on: after the topic was made again, offsets were lost, or to score payments "
    "again.\n\nA run in flight publishes nothing of the partitions that are moved: it fails, and the next one begins "
    "at the new place. Exit code 1: a partition could not be set; 2: nobody can be asked.",
)
def set_(
    to: Annotated[
        str,
        typer.Option(
            metavar="earliest|latest|OFFSET|TIME",
            help="Where the next run begins: the first payment retained, the end, an offset, or the first payment from "
            "a time on (2026-01-31T08:00, UTC unless it says otherwise).",
        ),
    ],
    partition: Partitions = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    topic: TopicName = None,
    group: Group = None,
) -> None:
    """Moves the group; see the command's help."""
    with _opened(topic, group) as here:
        here.require_unused()
        rows = here.standings()
        targets = here.targets(to, partition or [], rows)
        rows = [row for row in rows if row.partition in targets]
        changes = [row for row in rows if not row.stands_at(targets[row.partition], here.topic)]
        typer.echo(f"group {here.settings.group} on {here.topic.name}")
        _print(
            [
                ("partition", "first", "end", "committed", "new", ""),
                *(
                    (row.partition, row.first, row.end, _place(row), targets[row.partition], _effect(row, targets))
                    for row in rows
                ),
            ]
        )
        if not changes:
            typer.echo("Nothing to change.")
            return
        if not yes:
            _ask()
        agreed = None if yes else {row.partition: row for row in changes}
        moved = here.move({row.partition: targets[row.partition] for row in changes}, agreed)
    _tell(moved)


def _ask() -> None:
    if not sys.stdin.isatty():
        typer.echo("fraud offsets set: nobody can be asked here; add --yes to do it", err=True)
        raise typer.Exit(2)
    if not typer.confirm("Set these offsets?"):
        typer.echo("Nothing was changed.")
        raise typer.Exit(1)


def _tell(moved: list[OffsetMove]) -> None:
    for one in moved:
        before = "nothing" if one.before is None else str(one.before)
        done = f"set from {before} to {one.to}" if one.error is None else f"NOT set to {one.to}: {one.error}"
        typer.echo(f"partition {one.partition}: {done}")
    done_ones = [one for one in moved if one.error is None]
    if any(one.before is None or one.before > one.to for one in done_ones):
        typer.echo(
            "Payments from the new place on that were published before are scored and published again, on purpose: "
            "they are on the output topic twice then."
        )
    if any(one.before is not None and one.before < one.to for one in done_ones):
        typer.echo("What lies before the new place and was not scored yet is passed over.")
    if len(done_ones) < len(moved):
        typer.echo(f"{len(moved) - len(done_ones)} of {len(moved)} partitions could not be set.", err=True)
        raise typer.Exit(1)


def _opened(topic: str | None, group: str | None) -> AbstractContextManager[GroupOffsets]:
    from include.batch.group_offsets import GroupOffsets
    from include.kafka.client_config import client_settings
    from include.settings import Settings

    settings = Settings.from_environment().override(input_topic=topic, group=group)
    return GroupOffsets.opened(client_settings(os.environ), settings)


def _place(row: PartitionOffsets) -> str:
    return "open" if row.unsettled else "none" if row.committed is None else str(row.committed)


def _effect(row: PartitionOffsets, targets: dict[int, int]) -> str:
    new = targets[row.partition]
    if row.committed is None:
        return f"{row.end - new} to be scored"
    if row.committed > row.end:
        return f"past the end now; {row.end - new} to be scored"
    if new < row.committed:
        return f"{row.committed - new} back: scored again"
    return f"{new - row.committed} passed over" if new > row.committed else "stays"


def _print(rows: list[tuple[object, ...]]) -> None:
    for line in table(rows):
        typer.echo(line)
