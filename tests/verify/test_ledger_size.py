"""The queries of `fraud reconcile` take time in proportion to the payments, also beyond work_mem."""

from __future__ import annotations

import pytest

from include.kafka.cluster import Topic
from include.ledger.connection import LedgerConnection
from include.verify import ledger_queries as queries
from include.verify.findings import LedgerReport
from include.verify.ledger_comparison import LedgerComparison
from tests.support.ledger import query

PARTITIONS, BATCH = 3, 30_000
PAYMENTS = """
INSERT INTO ledger.predictions (source_topic, source_partition, source_offset, source_row, trans_num, prediction,
    model_run_id, batch_id, scored_at, output_partition, output_offset, payment)
SELECT 'topic_1', number %% 3, number / 3, 0, md5(number::text), number %% 20 = 0, 'run', 'batch ' || number / 30000,
    '2026-01-01 00:00+00'::timestamptz + number * interval '20 ms', number %% 3, number / 3,
    ('{"trans_num":"' || number || '","street":"' || repeat('x', 400) || '"}')::json
FROM generate_series(0, %s - 1) AS number
"""
OFFSETS = """
INSERT INTO ledger.recorded_offsets (topic, partition, topic_id, next_offset)
SELECT 'topic_2', part, 'out', %s FROM generate_series(0, 2) AS part
"""
BATCHES = """
INSERT INTO ledger.batches SELECT 'batch ' || number, 'r', 'u', 'group', 'topic_1', 'in', now(), now(), 'run', NULL,
    NULL, 'latest', 'default', NULL, NULL, 30000, 30000, 1500, 0, '{}', 0, '{}', '{}', '{}', NULL, 3
FROM generate_series(0, %s - 1) AS number
"""
PARTS = """
INSERT INTO ledger.batch_partitions
SELECT 'batch ' || number, part, number * 10000, (number + 1) * 10000, 10000, 500, 0, 0
FROM generate_series(0, %s - 1) AS number, generate_series(0, 2) AS part
"""
# What LedgerComparison does for each message of the output topic, here with the recorded rows.
EXPECT = queries.ADD_EXPECTED.replace("FROM incoming", "FROM ledger.predictions AS incoming")


def judged(ledger: LedgerConnection, batches: int, seconds: int, *changes: str) -> LedgerReport:
    """Compare that many batches, which are recorded as expected except for the `changes` of the table `expected`."""
    count = batches * BATCH
    query(ledger, PAYMENTS, count)
    query(ledger, OFFSETS, count)
    for statement in (BATCHES, PARTS):
        query(ledger, statement, batches)
    with ledger.open("a test") as connection:
        check = LedgerComparison(connection, "ledger", "group")
        with connection, connection.cursor() as cursor:
            for statement in (EXPECT, *changes):
                cursor.execute(statement)
            cursor.execute("SET statement_timeout = %s", (f"{seconds}s",))
        source, output = (Topic(name, key, (0, 1, 2)) for name, key in (("topic_1", "in"), ("topic_2", "out")))
        window = dict.fromkeys(source.partitions, (0, count // PARTITIONS))
        return check.compare(source, window, output, dict.fromkeys(output.partitions, 0), 20, has_all_letters=True)


def test_120_000_payments_are_compared_in_seconds(ledger: LedgerConnection):
    """Some came out twice, one again a second later, and two with other content."""
    found = judged(
        ledger,
        4,
        60,
        "INSERT INTO expected SELECT * FROM expected WHERE source_offset % 10 = 0",
        "UPDATE expected SET digest = 'other' WHERE (source_partition, source_offset) = (0, 7)",
        "INSERT INTO expected SELECT source_partition, source_offset, source_row, scored_at + interval '1 s', "
        "output_partition, output_offset, 'newer' FROM expected WHERE (source_partition, source_offset) = (1, 8)",
    )
    assert sum(part.rows for part in found.partitions) == 120_000
    assert [one.source for one in found.differing] == ["topic_1/0/7", "topic_1/1/8"]
    assert (found.count("unrecorded"), found.count("unfounded"), found.count("miscounted")) == (0, 0, 0)


@pytest.mark.fault
@pytest.mark.timeout(600)
def test_a_million_payments_are_compared_in_minutes(ledger: LedgerConnection):
    found = judged(ledger, 34, 180)
    assert found.is_whole
    assert sum(part.rows for part in found.partitions) == 34 * BATCH
