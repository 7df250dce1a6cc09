"""How far the output topic is recorded, as an operator sees it, and has it recorded again: `fraud ledger`."""

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
    """Of one partition of the output topic. `recorded` is None where nothing of this topic was recorded yet."""

    partition: int
    first: int
    recorded: int | None
    end: int
    recorded_at: str | None

    @property
    def waiting(self) -> int:
        return max(0, self.end - max(self.first, self.recorded or 0))


@dataclass(frozen=True)
class LedgerOffsets:
    cluster: Cluster
    connection: Connection
    topic: Topic

    @classmethod
    @contextmanager
    def opened(cls, cluster: Cluster, address: LedgerConnection, topic: str) -> Iterator[LedgerOffsets]:
        with open_ledger(address, "fraud ledger") as connection:
            yield cls(cluster, connection, cluster.describe_topic(topic))

    def standings(self) -> list[RecordedPartition]:
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
        found = []
        for number in partitions:
            recorded, at = known.get(number, (None, None))
            found.append(RecordedPartition(number, first[number], recorded, end[number], at))
        return found

    def lost(self) -> list[tuple[LostOffsets, str]]:
        """What was gone before it could be recorded, and when that was found, the newest first."""
        with self.connection, self.connection.cursor() as cursor:
            cursor.execute(
                "SELECT topic_id, partition, start_offset, end_offset, to_char(found_at, 'YYYY-MM-DD HH24:MI:SS') "
                "FROM ledger.lost_offsets WHERE topic = %s ORDER BY found_at DESC, partition, start_offset",
                (self.topic.name,),
            )
            return [(LostOffsets(*place), at) for *place, at in cursor.fetchall()]

    def rewind(self, to: str, partitions: Iterable[int]) -> dict[int, int | None]:
        """Where the next run begins, by partition, None where nothing is recorded yet; `to` is earliest, an offset or
        a time. What is recorded already stays as it is, or is restored.

        Raises SettingError where an offset lies ahead: it would be passed over. The first message retained, or of a
        time, may lie ahead: then the next run begins where it would have done.
        """
        rows = {row.partition: row for row in self.standings()}
        bounds = {row.partition: (row.first, row.end) for row in rows.values()}
        meant = resolve_targets(self.cluster, self.topic.name, to, partitions, bounds)
        targets: dict[int, int | None] = {}
        for partition, target in meant.items():
            recorded = rows[partition].recorded
            if (to == "latest" or to.isdecimal()) and target > (recorded or 0):
                raise SettingError(
                    f"--to {to}: {self.topic.name}/{partition} is recorded to {recorded or 0} only, and nothing before "
                    f"{target} may be passed over: give a lower offset, or --to earliest, or name with --partition "
                    "those that are recorded so far"
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
