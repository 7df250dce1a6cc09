"""How Alembic runs the migrations: on the connection that it is given, all of them in one transaction."""

from __future__ import annotations

from alembic import context
from sqlalchemy import text

connection = context.config.attributes["connection"]
with connection.begin():
    # Two that migrate at once: the second waits, and finds nothing to do.
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('fraud ledger migrate'))"))
    connection.execute(text("CREATE SCHEMA IF NOT EXISTS ledger"))
    context.configure(connection=connection, version_table_schema="ledger")
    context.run_migrations()
