"""Run the ledger's migrations for Alembic, on the connection that it is given and each in its own transaction."""

from __future__ import annotations

import time

from alembic import context
from sqlalchemy import text

connection = context.config.attributes["connection"]
_LOCK = text("SELECT pg_try_advisory_lock(hashtext('fraud ledger migrate'))")
_POLL_SECONDS = 0.2

# Serialize concurrent migrations: the second waits and finds nothing to do. Poll instead of blocking, because CREATE
# INDEX CONCURRENTLY waits for every open transaction, including one that waits for this lock.
while True:
    with connection.begin():
        has_lock = connection.execute(_LOCK).scalar()
    if has_lock:
        break
    time.sleep(_POLL_SECONDS)
# The lock is released when the connection closes, which serves this migration only.
with connection.begin():
    connection.execute(text("CREATE SCHEMA IF NOT EXISTS ledger"))
context.configure(connection=connection, version_table_schema="ledger", transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
