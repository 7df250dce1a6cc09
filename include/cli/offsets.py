"""`fraud offsets`: where the group stands on the input topic, and how an operator moves it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from confluent_kafka import Consumer
    from confluent_kafka.admin import AdminClient

    from include.kafka.config import Settings as KafkaSettings
    from include.kafka.offsets import Topic
    from include.kafka.standing import Moved
    from include.settings import Settings

app = typer.Typer(
    name="offsets", help="Show or set where the scoring goes on in the input topic.", no_args_is_help=True
)

TopicName = Annotated[str | None, typer.Option("--topic", help="Default: FRAUD_INPUT_TOPIC, else topic_1.")]
Group = Annotated[str | None, typer.Option(help="Default: FRAUD_GROUP, else fraud_scoring.")]

_TITLES = ("partition", "first", "committed", "end", "waiting", "batch", "committed at")


@dataclass(frozen=True)
class Standing:
    """`end` is the last stable offset; `committed` is None where the group has none, or a kafka transaction is open."""

    partition: int
    first: int
    committed: int | None
    end: int
    batch: str | None
    committed_at: str | None
    unsettled: bool = False
    topic_id: str | None = None

    @property
    def waiting(self) -> int:
        return max(0, self.end - max(self.first, self.committed or 0))


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

        plain = [asdict(row) | {"waiting": row.waiting} for row in rows]
        typer.echo(msgspec.json.format(msgspec.json.encode(plain), indent=2))
        return
    _print_table(
        [
            _TITLES,
            *(
                (row.partition, row.first, _place(row), row.end, row.waiting, row.batch, row.committed_at)
                for row in rows
            ),
        ]
    )


@app.command(name="set")
def set_(
    to: Annotated[
        str,
        typer.Option(
            metavar="earliest|latest|OFFSET|TIME",
            help="Where the next run begins: the first payment retained, the end, an offset, or the first payment from "
            "a time on (2026-01-31T08:00, UTC unless it says otherwise).",
        ),
    ],
    partition: Annotated[
        list[int] | None, typer.Option(help="Only this partition; repeat it for several. Default: all.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    topic: TopicName = None,
    group: Group = None,
) -> None:
    """Decide where the scoring goes on: after the topic was made again, offsets were lost, or to score payments again.

    A run in flight publishes nothing of the partitions that were moved: it fails, and the next one begins at the new
    place. Exit code 1 where a partition could not be set, 2 where nobody can be asked.
    """
    with _opened(topic, group) as here:
        here.require_unused_group()
        rows = here.standings()
        targets = here.targets(to, partition or [row.partition for row in rows], rows)
        rows = [row for row in rows if row.partition in targets]
        changes = [
            row
            for row in rows
            if row.unsettled or row.committed != targets[row.partition] or row.topic_id != here.topic.topic_id
        ]
        typer.echo(f"group {here.settings.group} on {here.topic.name}")
        _print_table(
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
        moved = here.move({row.partition: targets[row.partition] for row in changes})
    _tell(moved)


def _ask() -> None:
    if not sys.stdin.isatty():
        typer.echo("fraud offsets set: nobody can be asked here; add --yes to do it", err=True)
        raise typer.Exit(2)
    if not typer.confirm("Set these offsets?"):
        typer.echo("Nothing was changed.")
        raise typer.Exit(1)


def _tell(moved: list[Moved]) -> None:
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


@dataclass(frozen=True)
class _Here:
    kafka: KafkaSettings
    settings: Settings
    admin: AdminClient
    consumer: Consumer
    topic: Topic

    def require_unused_group(self) -> None:
        from include.kafka.offsets import require_unused_group

        require_unused_group(self.admin, self.kafka, self.settings.group)

    def standings(self) -> list[Standing]:
        from include.errors import HangingTransactionError
        from include.kafka.ends import first_offsets, last_stable_offsets
        from include.kafka.offsets import Committed, committed_offsets

        name, numbers = self.topic.name, self.topic.partitions
        unsettled = set()
        try:
            committed = committed_offsets(self.consumer, self.kafka, name, numbers)
        except HangingTransactionError:
            committed = {}
            for number in numbers:
                try:
                    committed |= committed_offsets(self.consumer, self.kafka, name, [number])
                except HangingTransactionError:
                    unsettled.add(number)
                    committed[number] = Committed(None)
        first = first_offsets(self.admin, self.kafka, name, numbers)
        end = last_stable_offsets(self.admin, self.kafka, name, numbers)
        return [
            Standing(
                partition=number,
                first=first[number],
                committed=committed[number].offset,
                end=end[number],
                batch=note.batch if (note := committed[number].note) else None,
                committed_at=note.at if note else None,
                unsettled=number in unsettled,
                topic_id=note.topic_id if note else None,
            )
            for number in numbers
        ]

    def targets(self, to: str, partitions: list[int], rows: list[Standing]) -> dict[int, int]:
        from include.errors import SettingError

        known = {row.partition: row for row in rows}
        for number in partitions:
            if number not in known:
                raise SettingError(f"{self.topic.name} has no partition {number}")
        if to == "earliest":
            return {number: known[number].first for number in partitions}
        if to == "latest":
            return {number: known[number].end for number in partitions}
        if to.isascii() and to.isdecimal():
            return {number: _inside(self.topic.name, known[number], int(to)) for number in partitions}
        return self._since(_time(to), {number: known[number] for number in partitions})

    def _since(self, time: datetime, rows: dict[int, Standing]) -> dict[int, int]:
        from include.kafka.ends import offsets_since

        found = offsets_since(self.admin, self.kafka, self.topic.name, rows, int(time.timestamp() * 1000))
        return {number: min(row.end, row.end if (at := found[number]) is None else at) for number, row in rows.items()}

    def move(self, targets: dict[int, int]) -> list[Moved]:
        import getpass

        from include.batch.outbox import Outbox
        from include.batch.storage import Storage
        from include.errors import HangingTransactionError
        from include.kafka.offsets import committed_offsets
        from include.kafka.standing import move
        from include.kafka.transaction import fence

        name, numbers, group = self.topic.name, self.topic.partitions, self.settings.group
        try:
            committed = committed_offsets(self.consumer, self.kafka, name, numbers)
        except HangingTransactionError:
            fence(self.kafka, group, name, numbers)
            committed = committed_offsets(self.consumer, self.kafka, name, numbers)
        # The notes that are about to go may be the only trace of a batch whose report is still owed.
        Outbox(Storage.open(self.settings.staging_url), group, name).note_commits(committed)
        batch = f"set by operator {getpass.getuser()}"
        return move(self.kafka, group, self.topic, targets, batch, datetime.now(UTC))


@contextmanager
def _opened(topic: str | None, group: str | None) -> Iterator[_Here]:
    from confluent_kafka import Consumer

    from include.kafka.config import client_settings, consumer_settings
    from include.kafka.offsets import admin_client, describe_topic
    from include.settings import Settings

    settings = Settings.from_environment()
    settings = replace(settings, input_topic=topic or settings.input_topic, group=group or settings.group)
    kafka = client_settings(os.environ)
    admin = admin_client(kafka)
    described = describe_topic(admin, kafka, settings.input_topic)
    consumer = Consumer(consumer_settings(kafka, settings.group))
    try:
        yield _Here(kafka, settings, admin, consumer, described)
    finally:
        consumer.close()


def _time(text: str) -> datetime:
    from include.errors import SettingError

    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise SettingError(f"--to {text}: give earliest, latest, an offset, or a time as 2026-01-31T08:00") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _inside(topic: str, row: Standing, offset: int) -> int:
    from include.errors import SettingError

    if row.first <= offset <= row.end:
        return offset
    raise SettingError(
        f"--to {offset}: {topic}/{row.partition} holds offsets from {row.first} to {row.end}; name partitions with "
        "--partition to set each to its own"
    )


def _place(row: Standing) -> str:
    return "open" if row.unsettled else "none" if row.committed is None else str(row.committed)


def _effect(row: Standing, targets: dict[int, int]) -> str:
    new = targets[row.partition]
    if row.committed is None:
        return f"{row.end - new} to be scored"
    if row.committed > row.end:
        return f"past the end now; {row.end - new} to be scored"
    if new < row.committed:
        return f"{row.committed - new} back: scored again"
    return f"{new - row.committed} passed over" if new > row.committed else "stays"


def _print_table(rows: list[tuple[object, ...]]) -> None:
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    for row in cells:
        typer.echo("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
