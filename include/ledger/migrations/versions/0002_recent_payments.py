"""Make queries for recent predictions fast: BRIN indexes on `scored_at`, which the view of version 0003 can use.

No table is rewritten. The indexes are built CONCURRENTLY, outside a transaction, so that recording goes on meanwhile.
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the indexes, one at a time."""
    with op.get_context().autocommit_block():
        for table in ("predictions", "replaced_predictions"):
            # An interrupted build leaves an invalid index.
            op.get_bind().exec_driver_sql(f"DROP INDEX CONCURRENTLY IF EXISTS ledger.{table}_scored_at")
            op.get_bind().exec_driver_sql(
                f"CREATE INDEX CONCURRENTLY {table}_scored_at ON ledger.{table} USING brin (scored_at)"
            )


def downgrade() -> None:
    """Raise NotImplementedError: a downgrade would delete data."""
    raise NotImplementedError(
        "migrations of the ledger cannot be undone, because that would delete data: restore a backup"
    )
