"""Payments are scored on real topics, then their output is damaged: `verify` finds exactly the damage."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Message, TopicPartition

from include.errors import SettingError
from include.kafka.admin import Admin
from include.payments.columns import COLUMNS
from include.producer.simulator import Simulator
from include.settings import Settings
from include.verify.findings import VerifyReport
from include.verify.verification import verify
from include.verify.window import Bounds
from tests.support import kafka_log
from tests.support.live_stack import LiveStack
from tests.support.rough_payments import mixed, split, tokens
from tests.support.scoring import Scoring

Make = Callable[..., Scoring]
Headers = list[tuple[str, bytes | None]]
PAYMENT = {"amt": "16.18", "cc_num": "377895991033232", "zip": "1.0", "name": '"a b"', "is_fraud": "0"}


@dataclasses.dataclass(frozen=True)
class Out:
    key: bytes | None
    value: bytes | None
    headers: Headers
    dead: bool = False

    @classmethod
    def of(cls, message: Message, *, dead: bool = False) -> Out:
        return cls(message.key(), message.value(), list(message.headers() or []), dead)

    @property
    def source(self) -> str:
        return (dict(self.headers)["source"] or b"").decode().partition("/")[2]


def servers(here: Scoring) -> str:
    return str(here.kafka["bootstrap.servers"])


def produce(here: Scoring, topic: str, messages: list[Out], transactional: str | None = None) -> Any:
    client = kafka_log.producer(servers(here), transactional)
    if transactional:
        client.begin_transaction()
    for message in messages:
        client.produce(topic, message.value, message.key, 0, headers=message.headers)
    client.flush(30)
    return client


def send(here: Scoring, *values: bytes | None, headers: Headers | None = None) -> None:
    produce(here, here.settings.input_topic, [Out(b"k", value, headers or []) for value in values])


def check(here: Scoring, **options: Any) -> VerifyReport:
    return verify(here.cluster, here.settings, **options)


def found(verdict: VerifyReport) -> dict[str, list[str]]:
    """Return the findings by kind, without the topics' names."""
    named = {
        kind: [str(one).replace(verdict.input_topic + "/", "") for one in verdict.findings(kind)]
        for kind in ("missing", "double", "altered", "nowhere")
    }
    return {kind: findings for kind, findings in named.items() if findings}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The output of four messages, which a test damages and publishes again on topics of its own."""

    published: list[Out]
    elsewhere: Scoring

    def publish(self, outs: list[Out]) -> dict[str, list[str]]:
        for topic, dead in (
            (self.elsewhere.settings.output_topic, False),
            (self.elsewhere.settings.dead_letter_topic, True),
        ):
            produce(self.elsewhere, topic, [one for one in outs if one.dead is dead])
        return found(check(self.elsewhere))

    def with_change(self, number: int, **change: Any) -> dict[str, list[str]]:
        return self.publish(
            [dataclasses.replace(one, **change) if at == number else one for at, one in enumerate(self.published)]
        )

    def with_value(self, number: int, before: bytes, after: bytes) -> dict[str, list[str]]:
        value = self.published[number].value or b""
        assert value.count(before) == 1
        return self.with_change(number, value=value.replace(before, after))


@pytest.fixture(scope="module")
def published(services: LiveStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Scoring, list[Out]]]:
    broker = services.bootstrap_servers
    names = [kafka_log.make_topic(broker, prefix=prefix) for prefix in ("payments", "scored", "dead")]
    topics = dict(zip(("input_topic", "output_topic", "dead_letter_topic"), names, strict=True))
    staging = str(tmp_path_factory.mktemp("staging"))
    here = Scoring({"bootstrap.servers": broker}, Settings(**topics, group="group of " + names[0], staging_url=staging))
    send(here, split(PAYMENT), split(PAYMENT, PAYMENT), b"no JSON", headers=[("trace", b"1"), ("reason", b"theirs")])
    here.run()
    assert found(check(here)) == {}
    outs = [Out.of(message) for message in kafka_log.read_all(broker, here.settings.output_topic)]
    outs.sort(key=lambda one: (one.source, dict(one.headers)["row"]))
    outs += [Out.of(one, dead=True) for one in kafka_log.read_all(broker, here.settings.dead_letter_topic)]
    assert [one.source for one in outs] == ["0/0", "0/1", "0/1", "0/2"]
    yield here, outs
    kafka_log.delete_topics(broker, names)


@pytest.fixture
def outcome(published: tuple[Scoring, list[Out]], topics: Callable[..., str]) -> Outcome:
    here, outs = published
    return Outcome(outs, here.change(output_topic=topics(), dead_letter_topic=topics()))


# Complete windows.


def test_all_kinds_of_rough_messages_come_out_exactly_once(scoring: Make):
    here = scoring(3, outputs=2)
    simulated = Simulator(seed=11, fraud_share=0.05, cards=500).payments(2_000)
    messages = mixed([tokens(COLUMNS, row) for row in simulated], seed=5, each=2, few=1)
    client, aborting = kafka_log.producer(servers(here)), kafka_log.producer(servers(here), f"a {here.settings.group}")
    for number, message in enumerate(messages):
        client.produce(here.settings.input_topic, message.value, message.key, number % 3, headers=message.headers)
        client.poll(0)
        if number % 500 == 0:
            client.flush()
            aborting.begin_transaction()
            aborting.produce(here.settings.input_topic, split(PAYMENT), b"aborted", number % 3)
            aborting.flush()
            aborting.abort_transaction()
    assert client.flush(30) == 0
    limited = here.change(max_payments=700)
    while (manifest := limited.drain_and_predict()).partitions:
        limited.publish(manifest)
    verdict = check(here)
    assert found(verdict) == {}
    assert verdict.is_whole
    assert verdict.count("messages") == len(messages)
    assert verdict.count("scored") + verdict.count("dead_letters") == verdict.count("due") > len(messages)
    assert verdict.count("scored") > 2_000
    assert verdict.count("dead_letters") > 100
    assert sum(part.end - part.start for part in verdict.partitions) > len(messages)
    assert verdict.notes == ()


def test_only_offsets_before_the_committed_one_are_due(scoring: Make):
    here = scoring(2, outputs=2)
    send(here, split(PAYMENT))
    here.run()
    send(here, split(PAYMENT))
    kafka_log.send(servers(here), here.settings.input_topic, [split(PAYMENT)], partition=1)
    verdict = check(here)
    assert [(part.partition, part.start, part.end, part.due) for part in verdict.partitions] == [(0, 0, 1, 1)]
    assert verdict.is_whole
    (note,) = verdict.notes
    assert note.startswith(f"{here.settings.input_topic}/1: not checked: group {here.settings.group} has committed")
    verdict = check(here, end=Bounds.parse("--to", ["0:2", "1:1"]))
    assert found(verdict) == {"missing": ["0/1 row 0", "1/0 row 0"]}


def test_outputs_of_other_windows_and_topics_are_ignored(scoring: Make):
    here = scoring(outputs=2)
    send(here, *[split(PAYMENT)] * 4)
    here.run()
    other = here.change(input_topic=scoring(outputs=2).settings.input_topic)
    send(other, split(PAYMENT))
    other.run()
    # All payments again, as after an operator moved the offsets back.
    again = here.change(group="another group", staging_url=here.settings.staging_url + "-2")
    again = again.change(max_payments=2)
    again.run()
    window = {"start": Bounds.parse("--from", ["2"]), "end": Bounds.parse("--to", ["0:4"])}
    assert check(here, **window).is_whole
    assert len(found(check(here))["double"]) == 2


def test_aborted_outputs_are_not_counted(scoring: Make):
    here = scoring(outputs=2)
    send(here, split(PAYMENT), split(PAYMENT))
    here.run()
    published = [Out.of(message) for message in kafka_log.read_all(servers(here), here.settings.output_topic)]
    produce(here, here.settings.output_topic, published, transactional=f"b {here.settings.group}").abort_transaction()
    assert check(here).is_whole
    produce(here, here.settings.output_topic, published, transactional=f"b {here.settings.group}").commit_transaction()
    assert check(here).count("double") == 2


def test_output_is_found_if_producer_clock_is_far_ahead(scoring: Make, topics: Callable[..., str]):
    here = scoring(outputs=2, input_topic=topics(**{"message.timestamp.after.max.ms": str(10**13)}))
    client = kafka_log.producer(servers(here))
    client.produce(here.settings.input_topic, split(PAYMENT), b"k", timestamp=4_000_000_000_000)
    assert client.flush(30) == 0
    here.run()
    assert check(here).is_whole


# Damaged windows.


def test_removed_payment_is_missing(outcome: Outcome):
    assert outcome.publish(outcome.published[1:]) == {"missing": ["0/0 row 0"]}


def test_removed_row_is_missing(outcome: Outcome):
    assert outcome.publish([outcome.published[0], *outcome.published[2:]]) == {"missing": ["0/1 row 0"]}


def test_removed_dead_letter_is_missing(outcome: Outcome):
    assert outcome.publish(outcome.published[:3]) == {"missing": ["0/2"]}


def test_copies_are_double_with_their_positions(outcome: Outcome):
    result = outcome.publish([*outcome.published, outcome.published[0], outcome.published[0], outcome.published[3]])
    settings = outcome.elsewhere.settings
    batch = (dict(outcome.published[0].headers)["batch_id"] or b"").decode()
    places = ", ".join(f"{settings.output_topic}/0/{at} (batch {batch})" for at in (3, 4))
    assert result == {
        "double": [
            f"0/0 row 0: 3 times, again at {places}",
            f"0/2: 2 times, again at {settings.dead_letter_topic}/0/1 (batch {batch})",
        ]
    }


def dead_letter_of(one: Out, value: bytes, *, whole: bool) -> Out:
    own = [(name, content) for name, content in one.headers if name in ("source", "batch_id", "row")]
    headers = [("trace", b"1"), ("reason", b"theirs"), ("reason", b"bad_value: it is bad"), *own]
    return Out(one.key, value, [header for header in headers if not (whole and header[0] == "row")], dead=True)


def test_payment_that_is_scored_and_a_dead_letter_is_double(outcome: Outcome):
    extra = dead_letter_of(outcome.published[0], split(PAYMENT), whole=False)
    assert list(outcome.publish([*outcome.published, extra])) == ["double"]


def test_dead_letter_of_a_whole_message_replaces_its_rows_and_is_double_beside_them(outcome: Outcome):
    whole = dead_letter_of(outcome.published[1], split(PAYMENT, PAYMENT), whole=True)
    first, row, _, last = outcome.published
    assert outcome.publish([first, last, whole]) == {}
    # Publish to the same topics.
    (line,) = outcome.publish([row])["double"]
    assert line.startswith("0/1 row 0: 2 times, again at")


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (b"16.18", b"16.19", "amt"),
        (b"16.18", b"16.180", "amt"),
        (b'"zip":1.0', b'"zip":1', "zip"),
        (b"377895991033232", b'"377895991033232"', "cc_num"),
        (b'"a b"', b'"a  b"', "name"),
        (b'"zip":1.0,', b"", "its columns or their order"),
        (b'"is_fraud":1', b'"is_fraud":2', "is_fraud is not 0 or 1"),
        (b'"is_fraud":1', b'"is_fraud":"1"', "is_fraud is not 0 or 1"),
        (b'"fraud_confirmed":null', b'"fraud_confirmed":0', '"fraud_confirmed": null is not at its end'),
        (b"[{", b"{", "it is not JSON"),
    ],
)
def test_altered_value_is_named_by_column(outcome: Outcome, before: bytes, after: bytes, said: str):
    place = f"{outcome.elsewhere.settings.output_topic}/0/0"
    assert outcome.with_value(0, before, after) == {"altered": [f"0/0 row 0: {said}; at {place}"]}


def test_reordered_columns_are_altered(outcome: Outcome):
    ((*fields, last),) = json.loads(outcome.published[0].value or b"", object_pairs_hook=list)
    turned = json.dumps([dict([*reversed(fields), last])]).encode()
    (line,) = outcome.with_change(0, value=turned)["altered"]
    assert "its columns or their order" in line


def test_changed_key_is_altered(outcome: Outcome):
    assert "the key" in outcome.with_change(0, key=b"K")["altered"][0]


@pytest.mark.parametrize("key", [None, b"", b"kk"])
def test_changed_key_of_dead_letter_is_altered(outcome: Outcome, key: bytes | None):
    assert [line.partition(";")[0] for line in outcome.with_change(3, key=key)["altered"]] == ["0/2: the key"]


def test_changed_byte_of_dead_letter_is_altered(outcome: Outcome):
    (line,) = outcome.with_value(3, b"no JSON", b"no JSOM")["altered"]
    assert line.startswith("0/2: the value;")


def test_dead_letter_without_original_header_is_altered(outcome: Outcome):
    (line,) = outcome.with_change(3, headers=outcome.published[3].headers[1:])["altered"]
    assert line.startswith("0/2: the headers;")


def test_dead_letter_without_valid_reason_is_altered(outcome: Outcome):
    headers = [
        (name, b"why" if content and b": " in content else content) for name, content in outcome.published[3].headers
    ]
    (line,) = outcome.with_change(3, headers=headers)["altered"]
    assert line.startswith("0/2: it has no reason;")


@pytest.mark.parametrize("place", [b"0/0 row 1", b"0/2 row 0", b"0/1"])
def test_output_without_input_row_is_from_nowhere(outcome: Outcome, place: bytes):
    source, _, row = place.partition(b" row ")
    topic = outcome.elsewhere.settings.input_topic.encode()
    headers = [("source", topic + b"/" + source), *([("row", row)] if row else [])]
    result = outcome.publish([*outcome.published, dataclasses.replace(outcome.published[0], headers=headers)])
    assert result == {"nowhere": [f"{place.decode()}: at {outcome.elsewhere.settings.output_topic}/0/3, batch ?"]}


def test_output_of_aborted_message_or_control_record_is_from_nowhere(scoring: Make):
    here = scoring(outputs=2)
    aborted = [Out(b"k", split(PAYMENT), [])]
    produce(here, here.settings.input_topic, aborted, transactional=f"c {here.settings.group}").abort_transaction()
    send(here, split(PAYMENT))
    here.run()
    assert check(here).is_whole
    (published,) = (Out.of(message) for message in kafka_log.read_all(servers(here), here.settings.output_topic))
    assert published.source == "0/2"
    for offset in (b"0", b"1"):
        source = published.source.encode()
        headers = [
            (n, (v or b"").replace(source, b"0/" + offset) if n == "source" else v) for n, v in published.headers
        ]
        produce(here, here.settings.output_topic, [dataclasses.replace(published, headers=headers)])
    verdict = check(here)
    assert [line.partition(":")[0] for line in found(verdict)["nowhere"]] == ["0/0 row 0", "0/1 row 0"]
    assert [(part.nowhere, part.missing, part.is_whole) for part in verdict.partitions] == [(2, 0, False)]


def test_all_findings_are_counted_but_only_the_first_listed(scoring: Make):
    here = scoring(outputs=2)
    send(here, *[split(PAYMENT)] * 50)
    verdict = check(here, end=Bounds(50), show=3)
    assert verdict.count("missing") == 50
    assert found(verdict) == {"missing": ["0/0 row 0", "0/1 row 0", "0/2 row 0"]}


# Windows that cannot be checked.


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        ("5", "4", "the window starts at 5 and ends at 4"),
        ("2", "7", "offset 7 is past the last stable offset 6"),
        ("1", "6", "offset 1 has expired: start at 2"),
        ("3:1", "6", "has no partition 3"),
    ],
)
def test_window_outside_the_topic_is_a_setting_error(scoring: Make, start: str, end: str, said: str):
    here = scoring(outputs=2)
    send(here, *[split(PAYMENT)] * 6)
    gone = TopicPartition(here.settings.input_topic, 0, 2)
    client = Admin(here.kafka)
    for answer in client.delete_records([gone]).values():
        answer.result(30)
    with pytest.raises(SettingError, match=said):
        check(here, start=Bounds.parse("--from", [start]), end=Bounds.parse("--to", [end]))


@pytest.mark.parametrize("text", ["", "x", "1:", ":1", "1:2:3", "-1", "0:x", "1.5"])
def test_invalid_bounds_are_a_setting_error(text: str):
    with pytest.raises(SettingError, match="give OFFSET or PARTITION:OFFSET"):
        Bounds.parse("--to", [text])
