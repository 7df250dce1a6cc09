"""Migration of a ledger that an earlier version has created and filled, while others read and write."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection

from dev.stack import postgres
from include.errors import LedgerError
from include.ledger.connection import LedgerConnection
from include.ledger.schema import migrate
from tests.support.ledger import query, upgrade
from tests.support.waiting import wait_until

# All combinations of a few values, so that many rows are equal in most columns.
FILL = """
INSERT INTO ledger.{table} (source_topic, source_partition, source_offset, source_row, trans_num, prediction,
    model_run_id, batch_id, scored_at, output_partition, output_offset, payment{more})
SELECT 'topic_' || topic, part, place, line, CASE number % 4 WHEN 0 THEN NULL ELSE 'payment ' || number % 5 END,
    number % 3 = 0, 'run', 'batch', '2026-01-01 00:00+00'::timestamptz + number % 2 * interval '1 hour', 0, 0,
    '{{}}'{values}
FROM (SELECT *, row_number() OVER () AS number FROM generate_series(1, 2) AS topic, generate_series(0, 1) AS part,
    generate_series(0, 5) AS place, generate_series(0, 2) AS line) AS made
"""
# The newest prediction of each trans_num, by the query of version 0001.
NEWEST = """
SELECT DISTINCT ON (trans_num) trans_num, source_topic, source_partition, source_offset, source_row, scored_at,
    model_name
FROM ledger.published_predictions WHERE trans_num IS NOT NULL
ORDER BY trans_num, scored_at DESC, coalesce(replaced_at, 'infinity') DESC,
    source_topic DESC, source_partition DESC, source_offset DESC, source_row DESC
"""


@pytest.fixture
def old_ledger(empty_database: LedgerConnection) -> LedgerConnection:
    """A ledger of version 0001."""
    upgrade(empty_database, "0001")
    return empty_database


def session(address: LedgerConnection) -> closing[connection]:
    return closing(
        psycopg2.connect(
            host=address.host, port=address.port, dbname=address.database, user=address.user, password=address.password
        )
    )


def fill(address: LedgerConnection) -> None:
    query(address, FILL.format(table="predictions", more="", values=""))
    # Some are replaced at the same time, some are altered, and some have no current prediction.
    later = ", now(), now() + number % 2 * interval '1 hour', number % 7 = 0, 'replaced'"
    query(
        address,
        FILL.format(table="replaced_predictions", more=", recorded_at, replaced_at, altered, model_name", values=later),
    )
    query(address, "DELETE FROM ledger.predictions WHERE trans_num = 'payment 3'")
    query(
        address,
        "UPDATE ledger.replaced_predictions SET scored_at = scored_at + interval '1 h' WHERE trans_num = 'payment 4'",
    )
    query(address, "INSERT INTO ledger.confirmations (trans_num, fraud, confirmed_by, origin) "
                   "VALUES ('payment 1', true, 'ann', 'a test')")  # fmt: skip


def test_migration_keeps_tables_rights_and_rows(old_ledger: LedgerConnection):
    fill(old_ledger)
    # An index of the same name, as an interrupted build leaves it.
    query(old_ledger, "CREATE INDEX predictions_scored_at ON ledger.predictions (batch_id)")
    query(old_ledger, f"GRANT SELECT ON ledger.payments TO {postgres.LEDGER}")
    files = "SELECT pg_relation_filenode('ledger.predictions'), pg_relation_filenode('ledger.replaced_predictions')"
    columns = "SELECT attname, atttypid FROM pg_attribute WHERE attrelid = 'ledger.payments'::regclass ORDER BY attnum"
    rights = "SELECT relacl::text FROM pg_class WHERE oid = 'ledger.payments'::regclass"
    payments = "SELECT * FROM ledger.payments ORDER BY trans_num"
    before = [query(old_ledger, sql) for sql in (files, columns, rights, payments)]
    assert migrate(old_ledger) == ("0001", "0003")
    assert [query(old_ledger, sql) for sql in (files, columns, rights, payments)] == before
    assert migrate(old_ledger) == ("0003", "0003")
    built = "SELECT indexdef FROM pg_indexes WHERE indexname LIKE '%predictions_scored_at' ORDER BY 1"
    assert ["USING brin (scored_at)" in text for (text,) in query(old_ledger, built)] == [True, True]
    invalid = "SELECT count(*) FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid WHERE NOT indisvalid"
    assert query(old_ledger, invalid) == [(0,)]


def test_view_payments_shows_newest_prediction_of_each_trans_num(ledger: LedgerConnection):
    fill(ledger)
    query(
        ledger,
        "UPDATE ledger.confirmations AS known SET (source_topic, source_partition, source_offset, source_row) = "
        "(one.source_topic, one.source_partition, one.source_offset, one.source_row) "
        "FROM ledger.payments AS one WHERE one.trans_num = known.trans_num",
    )
    wanted = query(ledger, NEWEST)
    assert {row[-1] for row in wanted} == {None, "replaced"}
    shown = "SELECT trans_num, source_topic, source_partition, source_offset, source_row, scored_at, model_name "
    assert query(ledger, f"{shown} FROM ledger.payments ORDER BY trans_num") == wanted
    assert query(ledger, "SELECT trans_num, confirmed_by FROM ledger.payments WHERE fraud_confirmed") == [
        ("payment 1", "ann")
    ]
    # Of rows that are equal in all columns of the order, one is shown.
    query(ledger, "DELETE FROM ledger.predictions")
    query(ledger, "INSERT INTO ledger.replaced_predictions SELECT * FROM ledger.replaced_predictions")
    assert len(query(ledger, f"{shown} FROM ledger.payments")) == len(query(ledger, NEWEST)) > 0


def test_query_for_last_hour_uses_the_index(ledger: LedgerConnection):
    query(
        ledger,
        "INSERT INTO ledger.predictions (source_topic, source_partition, source_offset, source_row, trans_num, "
        "prediction, model_run_id, batch_id, scored_at, output_partition, output_offset, payment) "
        "SELECT 'topic_1', 0, number, 0, md5(number::text), false, 'run', 'batch', "
        "now() - (60000 - number) * interval '10 seconds', 0, number, '{}' FROM generate_series(1, 60000) AS number",
    )
    query(ledger, "ANALYZE ledger.predictions")
    sql = "SELECT count(*) FROM ledger.payments WHERE scored_at > now() - interval '1 hour'"
    assert query(ledger, sql) == [(360,)]
    [(plan,)] = query(ledger, "EXPLAIN (ANALYZE, FORMAT JSON) " + sql)
    plan_nodes = list(flatten(plan[0]["Plan"]))
    assert "predictions_scored_at" in {node.get("Index Name") for node in plan_nodes}
    assert [
        node for node in plan_nodes if node.get("Relation Name") == "predictions" and "Seq" in node["Node Type"]
    ] == []
    # Only the blocks of the last hour are read.
    assert max(node["Actual Rows"] for node in plan_nodes) < 20_000


def test_recording_continues_while_indexes_are_built(old_ledger: LedgerConnection):
    fill(old_ledger)
    write = "UPDATE ledger.predictions SET amt = 1 WHERE source_offset = %s"
    with session(old_ledger) as older, session(old_ledger) as writer, ThreadPoolExecutor(1) as threads:
        older.cursor().execute(write, (0,))
        migrated = threads.submit(migrate, old_ledger)
        # CREATE INDEX CONCURRENTLY waits for the end of every older transaction.
        waits = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX CONCURRENTLY%%' AND state = %s"
        wait_until(lambda: query(old_ledger, waits, "active") != [(0,)], "no index is built", 30)
        with writer, writer.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '5s'")
            cursor.execute(write, (1,))
            assert cursor.rowcount > 0
        assert not migrated.done()
        older.commit()
        assert migrated.result(60) == ("0001", "0003")


def test_concurrent_migrations_run_once(empty_database: LedgerConnection):
    url = f"postgresql://{empty_database.user}:{empty_database.password}@{empty_database.host}:{empty_database.port}/{empty_database.database}"
    program = [sys.executable, "-m", "include.cli.main", "ledger", "migrate"]
    both = [
        subprocess.Popen(program, env={**os.environ, "LOGGER_SQL_URI": url}, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    lines = [one.communicate(timeout=60)[0].partition(": ")[2] for one in both]
    first = "from version nothing to 0003\n"
    assert first in lines
    # The other may read the version before the first migration, between two, or after the last.
    lines.remove(first)
    assert re.fullmatch(r"from version (nothing|0001|0002) to 0003\n|is up to date, version 0003\n", lines[0])
    assert query(empty_database, "SELECT count(*) FROM ledger.payments") == [(0,)]


@pytest.mark.parametrize("read", ["ledger.payments", "ledger.confirmations"])
def test_migration_fails_behind_a_long_reader_and_succeeds_on_the_next_try(empty_database: LedgerConnection, read: str):
    upgrade(empty_database, "0001")
    with session(empty_database) as reader:
        reader.cursor().execute(f"SELECT count(*) FROM {read}")
        with pytest.raises(LedgerError, match=r"/test_\w+ failed: canceling statement due to lock timeout$"):
            migrate(empty_database)
    assert migrate(empty_database) == ("0002", "0003")


def flatten(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from flatten(child)
