"""Store which payment a verdict is for, because several payments may share a trans_num.

The view `payments` is replaced by one that lets conditions reach the tables, so that a query for the last hour reads
the last hour.
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_COLUMNS = (
    "trans_num, source_topic, source_partition, source_offset, source_row, cc_num, amt, paid_at, merchant, category, "
    "prediction, fraud_probability, model_run_id, model_name, model_version, batch_id, scored_at, recorded_at, payment"
)
_ORDER = ("scored_at", "until", "source_topic", "source_partition", "source_offset", "source_row", "place")
# With the same scored_at, the current prediction counts as newer than the one that it replaced. Between rows that are
# equal in all else, the physical position in the table decides.
_CURRENT_ROWS = "SELECT *, 'infinity'::timestamptz AS until, '(0,0)'::tid AS place FROM ledger.predictions"
_REPLACED_ROWS = "SELECT *, replaced_at AS until, ctid AS place FROM ledger.replaced_predictions WHERE NOT altered"


def _newer_in(rows: str) -> str:
    newer, one = (", ".join(f"{table}.{name}" for name in _ORDER) for table in ("newer", "one"))
    return (
        f"SELECT FROM ({rows}) AS newer WHERE newer.trans_num = one.trans_num "
        f"AND newer.scored_at >= one.scored_at AND ({newer}) > ({one})"
    )


TABLES = """
ALTER TABLE ledger.confirmations
    DROP CONSTRAINT confirmations_pkey,
    ADD COLUMN source_topic text COLLATE "C",
    ADD COLUMN source_partition integer,
    ADD COLUMN source_offset bigint,
    ADD COLUMN source_row integer;
ALTER TABLE ledger.confirmation_changes
    ADD COLUMN source_topic text COLLATE "C",
    ADD COLUMN source_partition integer,
    ADD COLUMN source_offset bigint,
    ADD COLUMN source_row integer;
COMMENT ON TABLE ledger.confirmations IS 'The newest verdict of people on each payment: was it fraud?';
COMMENT ON COLUMN ledger.confirmations.source_topic IS
    'Null: given before version 0003 for a trans_num that several payments share; applies to none of them';

-- What was said of a trans_num was said of its payment, where there is only one.
UPDATE ledger.confirmations AS known
SET (source_topic, source_partition, source_offset, source_row)
    = ROW (payment.source_topic, payment.source_partition, payment.source_offset, payment.source_row)
FROM (
    SELECT DISTINCT ON (trans_num, cc_num, amt, paid_at, merchant, category)
        trans_num, source_topic, source_partition, source_offset, source_row
    FROM ledger.published_predictions WHERE trans_num IN (SELECT trans_num FROM ledger.confirmations)
    ORDER BY trans_num, cc_num, amt, paid_at, merchant, category, scored_at DESC,
        source_topic DESC, source_partition DESC, source_offset DESC, source_row DESC
) AS payment
WHERE payment.trans_num = known.trans_num AND 1 = (
    SELECT count(*) FROM (
        SELECT DISTINCT cc_num, amt, paid_at, merchant, category
        FROM ledger.published_predictions WHERE published_predictions.trans_num = known.trans_num
    ) AS payments
);
UPDATE ledger.confirmation_changes AS change
SET (source_topic, source_partition, source_offset, source_row)
    = ROW (known.source_topic, known.source_partition, known.source_offset, known.source_row)
FROM ledger.confirmations AS known WHERE known.trans_num = change.trans_num;

CREATE UNIQUE INDEX confirmations_source ON ledger.confirmations
    (trans_num, source_topic, source_partition, source_offset, source_row);
CREATE OR REPLACE FUNCTION ledger.keep_confirmation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ledger.confirmation_changes (
        trans_num, fraud, confirmed_by, confirmed_at, origin,
        source_topic, source_partition, source_offset, source_row
    ) VALUES (
        NEW.trans_num, NEW.fraud, NEW.confirmed_by, NEW.confirmed_at, NEW.origin,
        NEW.source_topic, NEW.source_partition, NEW.source_offset, NEW.source_row
    );
    RETURN NULL;
END $$;
"""

# A row is shown unless a newer one has its trans_num. DISTINCT ON would sort all rows before it applies a condition;
# with NOT EXISTS a condition on any column reaches the tables. A verdict counts for the payment that it names.
VIEW = f"""
CREATE OR REPLACE VIEW ledger.payments AS
SELECT {_COLUMNS}, fraud_confirmed, confirmed_by, confirmed_at
FROM (
    SELECT {_COLUMNS}, until, place FROM ({_CURRENT_ROWS}) AS stands
    UNION ALL
    SELECT {_COLUMNS}, until, place FROM ({_REPLACED_ROWS}) AS replaced
) AS one LEFT JOIN LATERAL (
    SELECT known.fraud AS fraud_confirmed, known.confirmed_by, known.confirmed_at
    FROM ledger.confirmations AS known
    -- A payment that came again at another place of the topic is the one that was confirmed.
    WHERE known.trans_num = one.trans_num AND EXISTS (
        SELECT FROM ledger.published_predictions AS given
        WHERE (given.trans_num, given.source_topic, given.source_partition, given.source_offset, given.source_row)
            = (known.trans_num, known.source_topic, known.source_partition, known.source_offset, known.source_row)
          AND (given.cc_num, given.amt, given.paid_at, given.merchant, given.category)
            IS NOT DISTINCT FROM (one.cc_num, one.amt, one.paid_at, one.merchant, one.category)
    )
    ORDER BY known.confirmed_at DESC LIMIT 1
) AS verdict ON true
WHERE trans_num IS NOT NULL AND NOT EXISTS ({_newer_in(_CURRENT_ROWS)}) AND NOT EXISTS ({_newer_in(_REPLACED_ROWS)});
COMMENT ON VIEW ledger.payments IS 'The newest prediction of each trans_num; fraud_confirmed: null until reviewed';
"""  # noqa: S608


def upgrade() -> None:
    """Add the columns, fill them for verdicts on an unambiguous payment, and replace the view."""
    # Fail after five seconds: readers of these tables and of the view would wait behind this ALTER TABLE while it waits
    # for a long query.
    op.get_bind().exec_driver_sql("SET LOCAL lock_timeout = '5s'")
    # Not through SQLAlchemy's text(), in which a colon begins a parameter.
    op.get_bind().exec_driver_sql(TABLES)
    op.get_bind().exec_driver_sql(VIEW)


def downgrade() -> None:
    """Raise NotImplementedError: a downgrade would delete data."""
    raise NotImplementedError(
        "migrations of the ledger cannot be undone, because that would delete data: restore a backup"
    )
