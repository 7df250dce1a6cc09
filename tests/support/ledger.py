"""Reads and writes a ledger with SQL, without the product's code."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import psycopg2
from alembic import command
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from include.ledger import schema
from include.ledger.connection import LedgerConnection
from tests.support.payments import Payment


def query(address: LedgerConnection, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """Run a statement in a transaction of its own, and return its rows."""
    with (
        closing(
            psycopg2.connect(
                host=address.host,
                port=address.port,
                dbname=address.database,
                user=address.user,
                password=address.password,
            )
        ) as connection,
        connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SET TIME ZONE 'UTC'")
        cursor.execute(sql, values or None)
        return cursor.fetchall() if cursor.description else []


def sources(address: LedgerConnection) -> list[tuple[str, bool]]:
    """Of each recorded payment: its place, as headers write it with its row behind, and its prediction."""
    rows = query(
        address,
        "SELECT format('%s/%s/%s/%s', source_topic, source_partition, source_offset, source_row), prediction "
        "FROM ledger.predictions",
    )
    return sorted((str(source), bool(prediction)) for source, prediction in rows)


def add_predictions(address: LedgerConnection, *payments: Payment, prediction: bool = True, hour: int = 8) -> None:
    """Insert payments as if they had been scored and recorded, one batch per hour."""
    for payment in payments:
        record = payment.scored(int(prediction))
        query(
            address,
            "INSERT INTO ledger.predictions (source_topic, source_partition, source_offset, source_row, trans_num, "
            "cc_num, amt, paid_at, merchant, category, prediction, fraud_probability, model_run_id, model_name, "
            "model_version, batch_id, scored_at, output_partition, output_offset, payment) "
            "SELECT 'topic_1', 0, (SELECT coalesce(max(source_offset) + 1, 0) FROM ledger.predictions), 0, "
            "%s, %s, %s, %s, %s, %s, %s, 0.875, "
            "'run', 'fraud_scoring', '3', 'batch', '2026-03-04 00:00+00'::timestamptz + %s * interval '1 hour', 0, 0, "
            "%s",
            record.get("trans_num"), None if record.get("cc_num") is None else str(record["cc_num"]),
            *(record.get(name) for name in ("amt", "trans_date_trans_time", "merchant", "category")),
            prediction, hour, json.dumps(record),
        )  # fmt: skip


def make_topic_again(address: LedgerConnection) -> None:
    """As if other payments had taken the places of all that are known: these are in replaced_predictions alone."""
    query(
        address,
        "UPDATE ledger.predictions SET (trans_num, prediction, scored_at, output_offset) = "
        "ROW ('later ' || source_offset, false, scored_at + interval '1 day', output_offset + 1000)",
    )


def upgrade(address: LedgerConnection, version: str) -> None:
    """Create or migrate the tables up to this version of the schema, which may be an earlier one."""
    with closing(address.connect("a test")) as opened:
        engine = create_engine("postgresql+psycopg2://", creator=lambda: opened, poolclass=NullPool)
        with engine.connect() as migrating:
            config = schema._config()
            config.attributes["connection"] = migrating
            command.upgrade(config, version)
