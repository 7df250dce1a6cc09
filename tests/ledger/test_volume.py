"""A large backlog: the recorded rows have the counts and the checksum of the output topic."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable

import pytest

from include.ledger.connection import LedgerConnection
from include.ledger.recorder import record
from tests.support import kafka_log
from tests.support.ledger import query
from tests.support.payments import payment
from tests.support.scoring import Scoring
from tests.support.topics import Reader

COUNT, PARTITIONS = 300_000, 6
FRAUD = b'"is_fraud":1'


@pytest.fixture
def pipeline(scoring: Callable[..., Scoring]) -> Scoring:
    """A pipeline that has scored COUNT payments, one in ten as fraud."""
    made = scoring(PARTITIONS, outputs=PARTITIONS)
    messages = [payment(number + 0.5).message for number in range(1_000)]
    client = kafka_log.producer(str(made.kafka["bootstrap.servers"]))
    for number in range(COUNT):
        client.produce(made.settings.input_topic, messages[number % 1_000], b"%d" % number, number % PARTITIONS)
        # The client's queue holds a third of the messages.
        client.poll(0) if number % 50_000 else client.flush(60)
    assert client.flush(60) == 0
    manifest = made.drain()
    made.predict_without_model(manifest, lambda offset: offset % 10 == 0)
    assert made.publish(manifest).predictions == COUNT
    return made


@pytest.mark.long
def test_300_000_payments_are_recorded_once_each(pipeline: Scoring, ledger: LedgerConnection):
    recorded = record(pipeline.cluster, pipeline.settings, ledger)
    assert (recorded.messages, recorded.rows) == (COUNT, COUNT)
    reader = Reader(str(pipeline.kafka["bootstrap.servers"]), pipeline.settings.output_topic)
    reader._starts = dict.fromkeys(reader._starts, 0)
    counts: Counter[int] = Counter()
    lines = []
    for message in reader.each():
        source, row = message.place
        counts[int(source.split("/")[1])] += 1
        fraud = int(FRAUD in (message.value or b""))
        lines.append(f"{source}/{row} {fraud}")
    assert set(counts.values()) == {COUNT // PARTITIONS}
    by_partition = "SELECT source_partition, count(*) FROM ledger.predictions GROUP BY 1"
    assert dict(query(ledger, by_partition)) == counts
    # Both sides are sorted by the source as text.
    published = hashlib.md5("\n".join(sorted(lines)).encode()).hexdigest()
    checksum = (
        "SELECT md5(string_agg(place || ' ' || prediction::int, E'\\n' ORDER BY place)) FROM (SELECT format("
        "'%s/%s/%s/%s', source_topic, source_partition, source_offset, source_row) COLLATE \"C\" AS place, prediction "
        "FROM ledger.predictions) AS recorded"
    )
    assert query(ledger, checksum) == [(published,)]
    again = record(pipeline.cluster, pipeline.settings, ledger)
    assert (again.messages, again.rows) == (0, 0)
    query(ledger, "UPDATE ledger.recorded_offsets SET next_offset = 0")
    whole = record(pipeline.cluster, pipeline.settings, ledger)
    assert (whole.messages, whole.rows) == (COUNT, 0)
    assert query(ledger, "SELECT count(*) FROM ledger.replaced_predictions") == [(0,)]
    assert query(ledger, checksum) == [(published,)]
