"""Make recent predictions cheap to ask for: BRIN indices on `scored_at`, and a view `payments` that can use them.

No table is rewritten. The indices are built CONCURRENTLY, outside a transaction, so that recording goes on meanwhile.
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_COLUMNS = (
    "trans_num, source_topic, source_partition, source_offset, source_row, cc_num, amt, paid_at, merchant, category, "
    "prediction, fraud_probability, model_run_id, model_name, model_version, batch_id, scored_at, recorded_at, payment"
)
_ORDER = ("scored_at", "until", "source_topic", "source_partition", "source_offset", "source_row", "place")
# At the same time the current prediction comes before the one that it replaced; of two rows that are equal in all
# else, the place in the table decides.
_STANDS = "SELECT *, 'infinity'::timestamptz AS until, '(0,0)'::tid AS place FROM ledger.predictions"
_REPLACED = "SELECT *, replaced_at AS until, ctid AS place FROM ledger.replaced_predictions WHERE NOT altered"


def _newer_in(rows: str) -> str:
    newer, one = (", ".join(f"{table}.{name}" for name in _ORDER) for table in ("newer", "one"))
    return (
        f"SELECT FROM ({rows}) AS newer WHERE newer.trans_num = one.trans_num "
        f"AND newer.scored_at >= one.scored_at AND ({newer}) > ({one})"
    )


# A row is shown unless a newer one has its trans_num. DISTINCT ON would sort all rows before any condition counts; like
# this a condition on any column reaches the tables.
VIEW = f"""
CREATE OR REPLACE VIEW ledger.payments AS
SELECT {_COLUMNS}, confirmations.fraud AS fraud_confirmed, confirmed_by, confirmed_at
FROM (
    SELECT {_COLUMNS}, until, place FROM ({_STANDS}) AS stands
    UNION ALL
    SELECT {_COLUMNS}, until, place FROM ({_REPLACED}) AS replaced
) AS one LEFT JOIN ledger.confirmations USING (trans_num)
WHERE trans_num IS NOT NULL AND NOT EXISTS ({_newer_in(_STANDS)}) AND NOT EXISTS ({_newer_in(_REPLACED)})
"""  # noqa: S608


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for table in ("predictions", "replaced_predictions"):
            # A build that was interrupted has left an invalid index.
            op.get_bind().exec_driver_sql(f"DROP INDEX CONCURRENTLY IF EXISTS ledger.{table}_scored_at")
            op.get_bind().exec_driver_sql(
                f"CREATE INDEX CONCURRENTLY {table}_scored_at ON ledger.{table} USING brin (scored_at)"
            )
    # Fail after five seconds instead of blocking all readers of the view behind one long query.
    op.get_bind().exec_driver_sql("SET LOCAL lock_timeout = '5s'")
    op.get_bind().exec_driver_sql(VIEW)


def downgrade() -> None:
    raise NotImplementedError("the ledger is not thrown away by a migration: restore a backup")
