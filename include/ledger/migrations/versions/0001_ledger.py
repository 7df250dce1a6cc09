"""Create the ledger: predictions, the batches that they came in, and people's verdicts."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE ledger.predictions (
    source_topic text COLLATE "C" NOT NULL,
    source_partition integer NOT NULL,
    source_offset bigint NOT NULL,
    source_row integer NOT NULL,
    trans_num text COLLATE "C",
    cc_num text,
    amt numeric,
    paid_at timestamptz,
    merchant text,
    category text,
    prediction boolean NOT NULL,
    fraud_probability double precision,
    model_run_id text NOT NULL,
    model_name text,
    model_version text,
    batch_id text NOT NULL,
    scored_at timestamptz NOT NULL,
    output_partition integer NOT NULL,
    output_offset bigint NOT NULL,
    payment json NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source_topic, source_partition, source_offset, source_row)
);
COMMENT ON TABLE ledger.predictions IS
    'One row a scored payment, by the place of the payment on the input topic. payment: all of it, as published';
-- With the time, so that the newest of thousands is found at once, should a constant stand for the trans_num.
CREATE INDEX predictions_trans_num ON ledger.predictions (trans_num, scored_at);
CREATE INDEX predictions_frauds ON ledger.predictions (scored_at) WHERE prediction;

-- A payment that is scored again, because an operator moved the group back or the topic was made again, replaces its
-- row; what stood there was published too, and is kept. So is an older prediction that is read later.
-- altered: what came next is of the same message, so that either of them is what a hand wrote.
CREATE TABLE ledger.replaced_predictions (
    LIKE ledger.predictions,
    altered boolean NOT NULL DEFAULT false,
    replaced_at timestamptz NOT NULL DEFAULT now(),
    replaced_by text NOT NULL DEFAULT session_user
);
CREATE INDEX replaced_predictions_source ON ledger.replaced_predictions (source_topic, source_partition, source_offset);
CREATE INDEX replaced_predictions_trans_num ON ledger.replaced_predictions (trans_num, scored_at);
CREATE INDEX replaced_predictions_frauds ON ledger.replaced_predictions (scored_at) WHERE prediction;
CREATE FUNCTION ledger.keep_replaced() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ledger.replaced_predictions SELECT OLD.*,
        (NEW.output_partition, NEW.output_offset, NEW.scored_at)
            = (OLD.output_partition, OLD.output_offset, OLD.scored_at);
    RETURN NULL;
END $$;
CREATE TRIGGER keep_replaced AFTER UPDATE ON ledger.predictions
    FOR EACH ROW EXECUTE FUNCTION ledger.keep_replaced();

-- A topic that was made again gives its places to other payments: those that had them before are no less payments.
CREATE VIEW ledger.all_predictions AS
SELECT *, false AS altered, NULL::timestamptz AS replaced_at, NULL::text AS replaced_by FROM ledger.predictions
UNION ALL
SELECT * FROM ledger.replaced_predictions;
COMMENT ON VIEW ledger.all_predictions IS 'What stands in predictions, where replaced_at is null, and what it replaced';
-- Once a row that a hand altered is restored, nobody may be asked for a verdict on what the hand wrote.
CREATE VIEW ledger.published_predictions AS SELECT * FROM ledger.all_predictions WHERE NOT altered;
COMMENT ON VIEW ledger.published_predictions IS 'all_predictions without what a hand wrote and a message has restored';

-- How far the output topic is recorded: written together with the rows, and the only truth about it.
CREATE TABLE ledger.recorded_offsets (
    topic text NOT NULL,
    partition integer NOT NULL,
    topic_id text NOT NULL,
    next_offset bigint NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    -- Rows that are older come from an earlier topic of that name.
    begun_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, partition)
);

-- Of the output topic; end_offset is null where nobody knows it, for the topic was deleted. told_at: when a run failed
-- with it.
CREATE TABLE ledger.lost_offsets (
    topic text NOT NULL,
    topic_id text NOT NULL,
    partition integer NOT NULL,
    start_offset bigint NOT NULL,
    end_offset bigint,
    found_at timestamptz NOT NULL DEFAULT now(),
    told_at timestamptz,
    PRIMARY KEY (topic, topic_id, partition, start_offset)
);
COMMENT ON TABLE ledger.lost_offsets IS 'Messages of the output topic that were gone before they could be recorded';

CREATE TABLE ledger.batches (
    batch_id text PRIMARY KEY,
    dag_run_id text NOT NULL,
    run_url text NOT NULL,
    consumer_group text NOT NULL,
    topic text NOT NULL,
    topic_id text NOT NULL,
    drained_at timestamptz NOT NULL,
    scored_at timestamptz NOT NULL,
    model_run_id text NOT NULL,
    model_name text,
    model_version text,
    model_asked text NOT NULL,
    chosen_by text NOT NULL,
    chosen_by_whom text,
    reason text,
    drained bigint NOT NULL,
    scored bigint NOT NULL,
    frauds bigint NOT NULL,
    dead_letters bigint NOT NULL,
    dead_letter_reasons jsonb NOT NULL,
    lost_to_retention bigint NOT NULL,
    step_seconds jsonb NOT NULL,
    message_ids text[] NOT NULL,
    recipients text[] NOT NULL,
    mailed_at timestamptz,
    marks integer NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE ledger.batches IS 'One row a scored batch, of what its run has published';
COMMENT ON COLUMN ledger.batches.marks IS
    'How many of its partitions were committed, and how many reported: a record with fewer comes too late';
CREATE TABLE ledger.batch_partitions (
    batch_id text NOT NULL REFERENCES ledger.batches ON DELETE CASCADE,
    partition integer NOT NULL,
    start_offset bigint NOT NULL,
    end_offset bigint NOT NULL,
    scored bigint NOT NULL,
    frauds bigint NOT NULL,
    dead_letters bigint NOT NULL,
    lost_to_retention bigint NOT NULL,
    -- Of the report that told of this partition: one that got through later has a report of its own.
    message_id text,
    recipients text[],
    mailed_at timestamptz,
    PRIMARY KEY (batch_id, partition)
);
CREATE INDEX batch_partitions_offsets ON ledger.batch_partitions (partition, start_offset);

CREATE TABLE ledger.exports (
    export_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    file text NOT NULL UNIQUE,
    payments bigint,
    started_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);

CREATE TABLE ledger.confirmations (
    trans_num text COLLATE "C" PRIMARY KEY,
    fraud boolean NOT NULL,
    confirmed_by text NOT NULL,
    confirmed_at timestamptz NOT NULL DEFAULT now(),
    origin text NOT NULL,
    export_id bigint REFERENCES ledger.exports
);
COMMENT ON TABLE ledger.confirmations IS 'What people say of a payment: was it fraud? The newest word of each';
CREATE INDEX confirmations_not_exported ON ledger.confirmations (trans_num) WHERE export_id IS NULL;
CREATE INDEX confirmations_export ON ledger.confirmations (export_id);
CREATE TABLE ledger.confirmation_changes (
    change_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    trans_num text COLLATE "C" NOT NULL,
    fraud boolean NOT NULL,
    confirmed_by text NOT NULL,
    confirmed_at timestamptz NOT NULL,
    origin text NOT NULL,
    changed_by text NOT NULL DEFAULT session_user
);
CREATE INDEX confirmation_changes_trans_num ON ledger.confirmation_changes (trans_num);
-- A verdict that is another than what was exported is exported again; one that a second person only says too is not.
CREATE FUNCTION ledger.export_again() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.export_id := NULL;
    RETURN NEW;
END $$;
CREATE TRIGGER export_again BEFORE UPDATE ON ledger.confirmations
    FOR EACH ROW WHEN (NEW.fraud IS DISTINCT FROM OLD.fraud) EXECUTE FUNCTION ledger.export_again();
CREATE FUNCTION ledger.keep_confirmation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO ledger.confirmation_changes (trans_num, fraud, confirmed_by, confirmed_at, origin)
    VALUES (NEW.trans_num, NEW.fraud, NEW.confirmed_by, NEW.confirmed_at, NEW.origin);
    RETURN NULL;
END $$;
-- After, not before: a row that an upsert finds there already is no insert.
CREATE TRIGGER keep_new_confirmation AFTER INSERT ON ledger.confirmations
    FOR EACH ROW EXECUTE FUNCTION ledger.keep_confirmation();
CREATE TRIGGER keep_confirmation AFTER UPDATE ON ledger.confirmations
    FOR EACH ROW WHEN (
        (NEW.fraud, NEW.confirmed_by, NEW.confirmed_at) IS DISTINCT FROM (OLD.fraud, OLD.confirmed_by, OLD.confirmed_at)
    ) EXECUTE FUNCTION ledger.keep_confirmation();

CREATE VIEW ledger.payments AS
SELECT DISTINCT ON (trans_num)
    trans_num, source_topic, source_partition, source_offset, source_row, cc_num, amt, paid_at, merchant, category,
    prediction, fraud_probability, model_run_id, model_name, model_version, batch_id, scored_at, recorded_at, payment,
    confirmations.fraud AS fraud_confirmed, confirmed_by, confirmed_at
FROM ledger.published_predictions LEFT JOIN ledger.confirmations USING (trans_num)
WHERE trans_num IS NOT NULL
-- Of one time: what stands, before what it replaced.
ORDER BY trans_num, scored_at DESC, coalesce(replaced_at, 'infinity') DESC,
    source_topic DESC, source_partition DESC, source_offset DESC, source_row DESC;
COMMENT ON VIEW ledger.payments IS 'The newest prediction of each trans_num; fraud_confirmed: null until reviewed';
"""


def upgrade() -> None:
    """Create all tables, views and triggers."""
    # Not through SQLAlchemy's text(), in which a colon begins a parameter.
    op.get_bind().exec_driver_sql(TABLES)


def downgrade() -> None:
    """Raise NotImplementedError: a downgrade would delete data."""
    raise NotImplementedError(
        "migrations of the ledger cannot be undone, because that would delete data: restore a backup"
    )
