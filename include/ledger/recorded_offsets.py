"""Show and rewind the recorded offsets of the output topic, for `fraud ledger show` and `fraud ledger rewind`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from include.errors import SettingError
from include.kafka.cluster import Cluster, Topic
from include.kafka.offset_targets import resolve_targets
from include.ledger.connection import LedgerConnection
from include.ledger.predictions import LostOffsets
from include.ledger.schema import open_ledger

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection  # noqa: N812


@dataclass(frozen=True)
class RecordedPartition:
    """Offsets of one partition of the output topic: the first retained one, the next to record, and the end offset.

    `recorded` and `recorded_at`, a time in UTC, are None if nothing of this topic is recorded yet.
    """

    partition: int
    first: int
    recorded: int | None
    end: int
    recorded_at: str | None

    @property
    def lag(self) -> int:
        """Return how many offsets are retained and not recorded."""
        return max(0, self.end - max(self.first, self.recorded or 0))


@dataclass(frozen=True)
class LedgerOffsets:
    """The recorded offsets of the output topic, over an open session."""

    cluster: Cluster
    connection: Connection
    topic: Topic

    @classmethod
    @contextmanager
    def open(cls, cluster: Cluster, ledger: LedgerConnection, topic: str) -> Iterator[LedgerOffsets]:
        """Connect to the ledger, and yield its offsets of `topic`. Raise LedgerError as `open_ledger` does."""
        with open_ledger(ledger, "fraud ledger") as connection:
            yield cls(cluster, connection, cluster.describe_topic(topic))

    def partitions(self) -> list[RecordedPartition]:
        """Return the offsets of each partition, in the order of their numbers."""
        name, partitions = self.topic.name, self.topic.partitions
        first = self.cluster.first_offsets(name, partitions)
        end = self.cluster.last_stable_offsets(name, partitions)
        with self.connection, self.connection.cursor() as cursor:
            cursor.execute(
                "SELECT partition, next_offset, to_char(recorded_at, 'YYYY-MM-DD HH24:MI:SS') "
                "FROM ledger.recorded_offsets WHERE topic = %s AND topic_id = %s",
                (name, self.topic.topic_id),
            )
            known = {partition: (offset, at) for partition, offset, at in cursor.fetchall()}
        rows = []
        for number in partitions:
            recorded, at = known.get(number, (None, None))
            rows.append(RecordedPartition(number, first[number], recorded, end[number], at))
        return rows

    def lost(self) -> list[tuple[LostOffsets, str]]:
        """Return the lost offsets, newest first, each with the time (UTC) at which a run found out."""
        with self.connection, self.connection.cursor() as cursor:
            cursor.execute(
                "SELECT topic_id, partition, start_offset, end_offset, to_char(found_at, 'YYYY-MM-DD HH24:MI:SS') "
                "FROM ledger.lost_offsets WHERE topic = %s ORDER BY found_at DESC, partition, start_offset",
                (self.topic.name,),
            )
            return [(LostOffsets(*offsets), found_at) for *offsets, found_at in cursor.fetchall()]

    def rewind(self, to: str, partitions: Iterable[int]) -> dict[int, int | None]:
        """Set where the next run begins to record, and return it by partition.

        `to` is `earliest`, an offset or a time; no `partitions` means all. A partition without a recorded offset is
        left alone, and its target is None. Rows that are recorded already stay as they are, or are restored.

        Raise SettingError if `to` is an offset after the recorded one, which would leave messages unrecorded. If the
        first retained message, or the first since a time, is after it, the partition keeps its recorded offset.
        """
        rows = {row.partition: row for row in self.partitions()}
        bounds = {row.partition: (row.first, row.end) for row in rows.values()}
        requested = resolve_targets(self.cluster, self.topic.name, to, partitions, bounds)
        targets: dict[int, int | None] = {}
        for partition, target in requested.items():
            recorded = rows[partition].recorded
            if (to == "latest" or to.isdecimal()) and target > (recorded or 0):
                raise SettingError(
                    f"--to {to}: {self.topic.name}/{partition} is recorded to {recorded or 0} only, and messages "
                    f"before {target} would be skipped: give a lower offset, or --to earliest, or name with "
                    "--partition the partitions that are recorded that far"
                )
            targets[partition] = None if recorded is None else min(target, recorded)
        with self.connection, self.connection.cursor() as cursor:
            for partition, offset in targets.items():
                if offset is not None:
                    cursor.execute(
                        "UPDATE ledger.recorded_offsets SET next_offset = %s WHERE topic = %s AND partition = %s "
                        "AND next_offset > %s",
                        (offset, self.topic.name, partition, offset),
                    )
        return targets
