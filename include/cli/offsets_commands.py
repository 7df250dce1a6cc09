"""The commands `fraud offsets show` and `fraud offsets set`: the group's offsets on the input topic."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from include.cli.console import BAD, JsonSwitch, Output, output, write_error
from include.cli.registration import NOT_ANSWERED, NOT_GOOD, add_command

if TYPE_CHECKING:
    from include.batch.group_offsets import GroupOffsets, PartitionOffsets
    from include.kafka.group_admin import OffsetChange

app = typer.Typer(
    name="offsets",
    help="Show or set the committed offsets of the scoring's group on the input topic: where the next run begins.",
    no_args_is_help=True,
)

Partitions = Annotated[
    list[int] | None, typer.Option("--partition", help="Only this partition; repeat it for several. Default: all.")
]
TopicName = Annotated[str | None, typer.Option("--topic", help="Default: FRAUD_INPUT_TOPIC, else topic_1.")]
Group = Annotated[str | None, typer.Option(help="Default: FRAUD_GROUP, else fraud_scoring.")]


def show(topic: TopicName = None, group: Group = None, json: JsonSwitch = False) -> None:
    """Show the group's committed offsets on the input topic, and the lag of each partition.

    For each partition: the first offset retained, the committed offset, the end offset, how many messages wait for the
    scoring, and which batch committed when.

    `fraud ledger show` shows how far the output topic is recorded in the ledger.
    """
    import msgspec

    with _open_group(topic, group) as offsets:
        rows = offsets.read()
        names = {"group": offsets.settings.group, "topic": offsets.topic.name}
    out = output(json=json)
    out.line(_heading(names))
    out.table(
        ("partition", "first", "committed", "end", "waiting", "batch", "committed at"),
        (
            (row.partition, row.first, _committed(row), row.end, row.waiting, row.batch, row.committed_at)
            for row in rows
        ),
    )
    out.document([msgspec.to_builtins(row) | {"waiting": row.waiting} | names for row in rows])


def set_(
    to: Annotated[
        str,
        typer.Option(
            metavar="earliest|latest|OFFSET|TIME",
            help="Where the next run begins: the first payment retained, the end, an offset, or the first payment "
            "since a time (2026-01-31T08:00; UTC unless it has a time zone).",
        ),
    ],
    partition: Partitions = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    topic: TopicName = None,
    group: Group = None,
    json: JsonSwitch = False,
) -> None:
    """Set the group's committed offsets on the input topic: where the next run begins.

    This is needed after the topic was recreated or offsets were lost, or to score payments again.

    A run in flight publishes nothing of the partitions that are set: it fails, and the next run begins at the new
    offsets. --json needs --yes.

    Exit code 0: set, or nothing to change; 1: a partition could not be set, or you declined; 2: confirmation is needed
    and stdin is not a terminal.
    """
    if json and not yes:
        raise typer.BadParameter("--json needs --yes")
    out = output(json=json)
    with _open_group(topic, group) as offsets:
        offsets.require_unused()
        rows = offsets.read()
        targets = offsets.resolve_targets(to, partition or [], rows)
        rows = [row for row in rows if row.partition in targets]
        changes = [row for row in rows if not row.is_at(targets[row.partition], offsets.topic)]
        names = {"group": offsets.settings.group, "topic": offsets.topic.name}
        out.line(_heading(names))
        out.table(
            ("partition", "first", "end", "committed", "new", ""),
            (
                (row.partition, row.first, row.end, _committed(row), targets[row.partition], _effect(row, targets))
                for row in rows
            ),
        )
        if changes and not yes:
            _ask()
        shown = None if yes else {row.partition: row for row in changes}
        moves = offsets.commit({row.partition: targets[row.partition] for row in changes}, shown) if changes else []
    _report_moves(out, moves)
    out.document({**names, "partitions": [_move_document(row, targets, moves) for row in rows]})
    if any(move.error for move in moves):
        raise typer.Exit(NOT_GOOD)


add_command(app, show)
add_command(app, set_, "set")


def _ask() -> None:
    if not sys.stdin.isatty():
        write_error("fraud offsets set: stdin is not a terminal, so the change cannot be confirmed: add --yes")
        raise typer.Exit(NOT_ANSWERED)
    if not typer.confirm("Set these offsets?"):
        write_error("Nothing was changed.")
        raise typer.Exit(NOT_GOOD)


def _report_moves(out: Output, moves: list[OffsetChange]) -> None:
    if not moves:
        out.line("Nothing to change.")
    for move in moves:
        before = "nothing" if move.before is None else str(move.before)
        if move.error is None:
            out.line(f"partition {move.partition}: set from {before} to {move.target}")
        else:
            out.line(f"partition {move.partition}: NOT set to {move.target}: {move.error}", BAD)
    done = [move for move in moves if move.error is None]
    if any(move.before is None or move.before > move.target for move in done):
        out.line(
            "Payments from the new offset on that were published before are scored and published again: they will be "
            "on the output topic twice."
        )
    if any(move.before is not None and move.before < move.target for move in done):
        out.line("Payments before the new offset that were not scored yet are skipped.")
    if len(done) < len(moves):
        write_error(f"{len(moves) - len(done)} of {len(moves)} partitions could not be set.")


def _move_document(row: PartitionOffsets, targets: dict[int, int], moves: list[OffsetChange]) -> dict[str, Any]:
    move = next((move for move in moves if move.partition == row.partition), None)
    return {
        "partition": row.partition,
        "first": row.first,
        "end": row.end,
        "before": move.before if move else row.committed,
        "to": targets[row.partition],
        "set": move is not None and move.error is None,
        "error": str(move.error) if move and move.error else None,
    }


def _open_group(topic: str | None, group: str | None) -> AbstractContextManager[GroupOffsets]:
    from include.batch.group_offsets import GroupOffsets
    from include.kafka.cluster import Cluster
    from include.settings import Settings

    settings = Settings.from_environment().override(input_topic=topic, group=group)
    return GroupOffsets.open(Cluster.from_environment(), settings)


def _heading(names: dict[str, str]) -> str:
    return f"group {names['group']} on the input topic {names['topic']}"


def _committed(row: PartitionOffsets) -> str:
    return "open" if row.unsettled else "none" if row.committed is None else str(row.committed)


def _effect(row: PartitionOffsets, targets: dict[int, int]) -> str:
    new = targets[row.partition]
    if row.committed is None:
        return f"{row.end - new} to be scored"
    if row.committed > row.end:
        return f"past the end now; {row.end - new} to be scored"
    if new < row.committed:
        return f"{row.committed - new} back: scored again"
    return f"{new - row.committed} skipped" if new > row.committed else "no change"
