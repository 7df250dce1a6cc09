"""The queries of `fraud reconcile`: they compare rows of the ledger with the messages of the output topic."""

from __future__ import annotations

from include.ledger.predictions import CONTENT, comparable


def _digest(table: str) -> str:
    return f"md5(ROW({comparable(table, CONTENT)})::text)"


# One row for each message of the output topic that is due.
CREATE_EXPECTED = """
CREATE TEMPORARY TABLE expected AS
SELECT source_partition, source_offset, source_row, scored_at, output_partition, output_offset, ''::text AS digest
FROM ledger.predictions WITH NO DATA
"""
ADD_EXPECTED = f"""
INSERT INTO expected
SELECT source_partition, source_offset, source_row, scored_at, output_partition, output_offset, {_digest("incoming")}
FROM incoming
"""  # noqa: S608
# The window of the input topic, the first retained offsets of the output topic, and the dead letters (`place` is the
# offset of their source).
CREATE_BOUNDS = """
CREATE TEMPORARY TABLE checked (partition integer, since bigint, until bigint);
CREATE TEMPORARY TABLE retained (partition integer, first bigint);
CREATE TEMPORARY TABLE letters (partition integer, place bigint, batch_id text);
"""
# For each source: its newest message of the output topic, whether all or some of its messages still wait for the
# recorder, and the kind that results.
# ANALYZE, because PostgreSQL has no statistics of a table that was just created. Each table is joined once, by
# equality: a subquery for each row takes quadratic time as soon as its table is larger than work_mem.
COMPARE = f"""
ANALYZE expected;
CREATE TEMPORARY TABLE judged AS
WITH due AS (
    SELECT source_partition, source_offset, source_row, max(scored_at) AS newest,
           min(output_partition) AS output_partition, min(output_offset) AS output_offset,
           bool_and(output_offset >= coalesce(next_offset, 0)) AS all_wait,
           bool_or(output_offset >= coalesce(next_offset, 0)) AS some_wait
    FROM expected
    LEFT JOIN ledger.recorded_offsets AS known
        ON known.topic = %(output)s AND known.topic_id = %(output_id)s AND known.partition = output_partition
    GROUP BY source_partition, source_offset, source_row
), contents (of_partition, of_offset, of_row, at, content) AS (
    SELECT DISTINCT source_partition, source_offset, source_row, scored_at, digest FROM expected
), there AS (
    SELECT source_partition, source_offset, source_row, output_partition, output_offset, batch_id, recorded_at,
           {_digest("predictions")} AS digest
    FROM ledger.predictions
    JOIN checked ON source_partition = partition AND source_offset >= since AND source_offset < until
    WHERE source_topic = %(source)s
)
SELECT source_partition, source_offset, source_row,
       coalesce(due.output_partition, there.output_partition) AS output_partition,
       coalesce(due.output_offset, there.output_offset) AS output_offset,
       coalesce(due.some_wait, false) AS some_wait,
       CASE WHEN there.digest IS NULL THEN CASE WHEN due.all_wait THEN 'waiting' ELSE 'unrecorded' END
            WHEN due.newest IS NULL THEN
                CASE WHEN EXISTS (SELECT FROM ledger.batches WHERE batches.batch_id = there.batch_id
                                  AND (topic, topic_id) <> (%(source)s, %(source_id)s)) THEN 'earlier'
                     WHEN there.output_offset < (SELECT first FROM retained
                                                 WHERE retained.partition = there.output_partition)
                       OR NOT EXISTS (SELECT FROM ledger.recorded_offsets AS known
                                      WHERE (known.topic, known.topic_id) = (%(output)s, %(output_id)s)
                                      AND known.partition = there.output_partition
                                      AND known.begun_at <= there.recorded_at) THEN 'expired'
                     ELSE 'unfounded' END
            WHEN content IS NOT NULL THEN 'right'
            WHEN due.some_wait THEN 'waiting' ELSE 'differing' END AS kind
FROM due FULL JOIN there USING (source_partition, source_offset, source_row)
LEFT JOIN contents ON (of_partition, of_offset, of_row, at, content)
    = (due.source_partition, due.source_offset, due.source_row, due.newest, there.digest)
"""  # noqa: S608
# Without indexes and statistics, PostgreSQL reads these tables completely for each batch.
INDEX = """
CREATE INDEX ON judged (source_partition, source_offset) WHERE some_wait OR kind IN ('unrecorded', 'differing');
CREATE INDEX ON letters (batch_id, partition, place);
ANALYZE judged;
ANALYZE letters;
"""
COUNT = "SELECT source_partition, kind, count(*) FROM judged GROUP BY source_partition, kind"
LIST = """
SELECT source_partition, source_offset, source_row, output_partition, output_offset FROM judged WHERE kind = %s
ORDER BY source_partition, source_offset, source_row LIMIT %s
"""
EXPIRED = "SELECT source_partition, source_offset, source_row FROM judged WHERE kind = 'expired'"
# Batches that are completely in the window and whose record counts differ from the rows. A batch is left out if its
# rows wait for the recorder or are reported as unrecorded or differing.
MISCOUNTED = """
WITH inside AS MATERIALIZED (
    SELECT parts.* FROM ledger.batch_partitions AS parts
    JOIN checked ON checked.partition = parts.partition AND start_offset >= since AND end_offset <= until
)
SELECT parts.partition, parts.batch_id, start_offset, end_offset,
       format('its record has %%s scored, %%s frauds, %%s dead letters; found are %%s, %%s, %%s%%s%%s',
              parts.scored, parts.frauds, parts.dead_letters,
              rows_there, frauds_there, coalesce(letters_there::text, 'an unknown number'),
              CASE WHEN adds_up THEN '' ELSE '; its partitions do not add up' END,
              CASE WHEN other_models THEN '; scored by another model' ELSE '' END)
FROM inside AS parts JOIN ledger.batches USING (batch_id)
CROSS JOIN LATERAL (
    SELECT count(DISTINCT (source_offset, source_row)) AS rows_there,
           count(DISTINCT (source_offset, source_row)) FILTER (WHERE prediction) AS frauds_there,
           coalesce(bool_or(every.model_run_id <> batches.model_run_id), false) AS other_models
    FROM ledger.published_predictions AS every
    WHERE source_topic = topic AND source_partition = parts.partition AND source_offset >= start_offset
      AND source_offset < end_offset AND every.batch_id = parts.batch_id
) AS counted
CROSS JOIN LATERAL (
    SELECT CASE WHEN %(all_letters)s THEN count(*) END AS letters_there FROM letters
    WHERE letters.partition = parts.partition AND letters.batch_id = parts.batch_id
      AND letters.place >= start_offset AND letters.place < end_offset
) AS refused
CROSS JOIN LATERAL (
    SELECT (sum(every.scored), sum(every.frauds), sum(every.dead_letters), sum(every.lost_to_retention))
         = (batches.scored, batches.frauds, batches.dead_letters, batches.lost_to_retention) AS adds_up
    FROM ledger.batch_partitions AS every WHERE every.batch_id = parts.batch_id
) AS added
WHERE topic = %(source)s AND topic_id = %(source_id)s AND consumer_group = %(group)s
  AND ((rows_there, frauds_there, coalesce(letters_there, parts.dead_letters))
       <> (parts.scored, parts.frauds, parts.dead_letters) OR other_models OR NOT adds_up)
  AND NOT EXISTS (
    SELECT FROM judged WHERE source_partition = parts.partition AND source_offset >= start_offset
    AND source_offset < end_offset AND (some_wait OR kind IN ('unrecorded', 'differing'))
  )
ORDER BY parts.partition, start_offset
"""
LOST = "SELECT count(*) FROM ledger.lost_offsets WHERE topic = %s"
BATCHES = """
SELECT parts.partition, start_offset, end_offset
FROM ledger.batch_partitions AS parts JOIN ledger.batches USING (batch_id)
WHERE topic = %s AND topic_id = %s AND consumer_group = %s
ORDER BY parts.partition, start_offset
"""
SCORED_PARTITIONS = """
SELECT DISTINCT topic, parts.partition FROM ledger.batch_partitions AS parts JOIN ledger.batches USING (batch_id)
"""
