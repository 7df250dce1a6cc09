"""Make recent predictions cheap to ask for: BRIN indices on `scored_at`, which the view of version 0003 can use.

No table is rewritten. The indices are built CONCURRENTLY, outside a transaction, so that recording goes on meanwhile.
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for table in ("predictions", "replaced_predictions"):
            # A build that was interrupted has left an invalid index.
            op.get_bind().exec_driver_sql(f"DROP INDEX CONCURRENTLY IF EXISTS ledger.{table}_scored_at")
            op.get_bind().exec_driver_sql(
                f"CREATE INDEX CONCURRENTLY {table}_scored_at ON ledger.{table} USING brin (scored_at)"
            )


def downgrade() -> None:
    raise NotImplementedError("the ledger is not thrown away by a migration: restore a backup")
