"""Messages with refused rows: each row has a dead letter, and their copies of the message are limited in bytes."""

from __future__ import annotations

import json
from collections.abc import Callable

from confluent_kafka import Message, TopicPartition

from include.kafka.admin import Admin
from include.verify.findings import VerifyReport
from include.verify.verification import verify
from tests.integration.test_protocol import scored
from tests.support import kafka_log
from tests.support.scoring import Scoring

Make = Callable[..., Scoring]
COLUMNS = ["amt", "filler", "trans_num"]
KEY, HEADERS = b"a card", [("trace", b"t" * 1_000)]


def send(here: Scoring, rows: list[list[object]], key: bytes = KEY) -> bytes:
    value = json.dumps({"columns": COLUMNS, "data": rows}).encode()
    client = kafka_log.producer(str(here.kafka["bootstrap.servers"]))
    client.produce(here.settings.input_topic, value, key, 0, headers=HEADERS)
    assert client.flush(30) == 0
    return value


def read_dead(here: Scoring) -> list[Message]:
    return kafka_log.read_all(str(here.kafka["bootstrap.servers"]), here.settings.dead_letter_topic)


def verdict(here: Scoring) -> VerifyReport:
    return verify(here.cluster, here.settings)


def header(message: Message, name: str) -> bytes | None:
    return dict(message.headers() or []).get(name)


def test_large_message_is_copied_into_one_dead_letter_only(scoring: Make):
    here = scoring()
    # As many valid rows as invalid ones, and a megabyte in all.
    rows: list[list[object]] = [[1, "x" * 480, str(n)] if n % 2 else [n] for n in range(4_000)]
    value = send(here, rows)
    published = here.run()
    assert (published.predictions, published.dead_letters) == (2_000, 2_000)
    assert len(scored(here)) == 2_000
    letters = read_dead(here)
    assert [header(one, "row") for one in letters] == [b"%d" % n for n in range(0, 4_000, 2)]
    first, *others = letters
    assert (first.key(), first.value(), header(first, "trace")) == (KEY, value, HEADERS[0][1])
    assert header(first, "original_row") is None
    assert {(one.key(), one.value(), header(one, "original_row"), header(one, "trace")) for one in others} == {
        (KEY, b"", b"0", None)
    }
    assert {header(one, "reason") for one in letters} == {b"row_length: the row has 1 values for 3 columns"}
    assert sum(len(one.value() or b"") for one in letters) == len(value)
    found = verdict(here)
    assert found.is_whole
    assert (found.count("due"), found.count("scored"), found.count("dead_letters")) == (4_000, 2_000, 2_000)


def test_small_message_is_copied_into_each_dead_letter(scoring: Make):
    here = scoring()
    value = send(here, [[1], [1, "x", "a"], [2]])
    here.run()
    assert [(one.value(), header(one, "row")) for one in read_dead(here)] == [(value, b"0"), (value, b"2")]
    assert verdict(here).is_whole


def test_verify_finds_dead_letters_without_their_message(scoring: Make):
    here = scoring()
    send(here, [["x" * 300_000], [1], [2], [3]])
    here.run()
    assert verdict(here).is_whole
    # Delete the dead letter that holds the message, as retention would: the others are useless without it.
    admin = Admin(here.kafka)
    place = TopicPartition(here.settings.dead_letter_topic, 0, 1)
    for done in admin.delete_records([place]).values():
        done.result(30)
    found = verdict(here)
    assert (found.count("missing"), found.count("altered")) == (1, 3)
    assert "no dead letter of row 0 holds the message" in found.altered[0].detail


def test_message_with_a_large_key_is_one_dead_letter(scoring: Make):
    """Each row would have the key, so the output would be 200 MB."""
    here = scoring()
    send(here, [[1, "x", "a"]] * 1_000, key=b"k" * 200_000)
    assert here.run().dead_letters == 1
    (letter,) = read_dead(here)
    assert (header(letter, "row"), (header(letter, "reason") or b"").partition(b":")[0]) == (None, b"too_many_rows")
    assert verdict(here).is_whole
