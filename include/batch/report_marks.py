"""Record attempts and deliveries of a batch's reports: a file `report-<lowest partition>.json` for each report.

Each attempt writes the file before it mails: if it cannot be written, no mail is sent, or every run would send the
report again. The first attempt fixes the partitions, and with them the Message-ID; a partition that is committed later
gets its own report. After acceptance the delivery is written to the same file: that needs no other permission and
hardly more space than the first write, so it rarely fails.

An earlier version wrote `reported-<partition>` after the mail, one file a partition. Those files still count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import msgspec

from include.batch.batch_record import read_optional
from include.report.report import PendingReport, ReportDelivery
from include.storage.staging import Storage

_PREFIX, _SUFFIX = "report-", ".json"
_EARLIER_PREFIX = "reported-"


class ReportMark(msgspec.Struct, frozen=True):
    """The content of the file.

    `delivery` is None until a mail server has accepted the report. `begun_at` is when the last attempt began; with a
    delivery it is when the server accepted the report.
    """

    partitions: tuple[int, ...]
    begun_at: datetime
    delivery: ReportDelivery | None = None


@dataclass(frozen=True)
class ReportMarks:
    """The marks of a batch.

    `deliveries` has each reported partition, with None if an earlier version's mark does not tell the delivery. `begun`
    has the partitions of each report that an attempt began to mail, and that no server is known to have accepted.
    """

    deliveries: Mapping[int, ReportDelivery | None]
    begun: tuple[frozenset[int], ...]

    @classmethod
    def read(cls, storage: Storage, folder: str, names: Iterable[str]) -> ReportMarks:
        """Read the marks among `names`, the files in the batch's `folder`.

        Raise StagingError if one cannot be read, because then it is unknown what was mailed. Marks of earlier versions
        that cannot be read still say by their names that their partition was reported.
        """
        earlier = [name for name in names if name.startswith(_EARLIER_PREFIX)]
        deliveries = {
            int(name.removeprefix(_EARLIER_PREFIX)): read_optional(storage, f"{folder}/{name}", ReportDelivery)
            for name in earlier
        }
        marks = [
            storage.need_json(f"{folder}/{name}", ReportMark)
            for name in names
            if name.startswith(_PREFIX) and name.endswith(_SUFFIX)
        ]
        for mark in marks:
            if mark.delivery is not None:
                deliveries |= dict.fromkeys(mark.partitions, mark.delivery)
        begun = (frozenset(mark.partitions) for mark in marks if mark.delivery is None)
        return cls(deliveries, tuple(numbers for numbers in begun if not numbers <= deliveries.keys()))

    def may_send(self, partitions: frozenset[int]) -> bool:
        """Return whether a report of exactly these partitions may be sent.

        It may not if one of them was reported, or if an attempt has begun to mail a different set that overlaps them.
        """
        if not partitions.isdisjoint(self.deliveries):
            return False
        return all(partitions == numbers or partitions.isdisjoint(numbers) for numbers in self.begun)


def partitions_of(report: PendingReport) -> frozenset[int]:
    """Return the partitions that a report covers."""
    return frozenset(partition for _, partition, _, _ in report.facts.ranges)


def write_mark(
    storage: Storage, folder: str, partitions: Iterable[int], at: datetime, delivery: ReportDelivery | None = None
) -> None:
    """Write the mark, replacing that of an earlier attempt. Raise StagingError if it cannot be written."""
    numbers = tuple(sorted(partitions))
    mark = ReportMark(numbers, at, delivery)
    storage.write(f"{folder}/{_PREFIX}{numbers[0]}{_SUFFIX}", msgspec.json.encode(mark))
