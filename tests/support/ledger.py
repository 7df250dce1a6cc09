"""A ledger as tests see it: with SQL, and nothing of the product."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import psycopg2

from include.ledger.address import Address


def query(address: Address, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """Its own transaction; nothing where the statement gives no rows."""
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


def sources(address: Address) -> list[tuple[str, bool]]:
    """Of each recorded payment: its place, as headers write it with its row behind, and its prediction."""
    rows = query(
        address,
        "SELECT format('%s/%s/%s/%s', source_topic, source_partition, source_offset, source_row), prediction "
        "FROM ledger.predictions",
    )
    return sorted((str(source), bool(prediction)) for source, prediction in rows)
