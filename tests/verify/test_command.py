"""The output and exit codes of `fraud verify`."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from confluent_kafka import TopicPartition
from typer.testing import CliRunner, Result

from dev.stack.kafka import admin
from include.cli.main import app
from tests.support import kafka_log
from tests.support.rough_payments import split
from tests.support.scoring import Scoring

Make = Callable[..., Scoring]
PAYMENT = split({"cc_num": "4000000000000000002", "amt": "16.18"})


def fraud_verify(here: Scoring, *words: str) -> Result:
    settings = here.settings
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": str(here.kafka["bootstrap.servers"]),
        "FRAUD_INPUT_TOPIC": settings.input_topic,
        "FRAUD_OUTPUT_TOPIC": settings.output_topic,
        "FRAUD_DEAD_LETTER_TOPIC": settings.dead_letter_topic,
        "FRAUD_GROUP": settings.group,
    }
    return CliRunner().invoke(app, ["verify", *words], env=environment)


def send(here: Scoring, count: int) -> None:
    kafka_log.send(str(here.kafka["bootstrap.servers"]), here.settings.input_topic, [PAYMENT] * count)


def test_complete_window_exits_0_and_shows_counts_by_partition(scoring: Make):
    here = scoring(2, outputs=2)
    send(here, 3)
    kafka_log.send(str(here.kafka["bootstrap.servers"]), here.settings.input_topic, [b"no JSON"], partition=1)
    here.run()
    done = fraud_verify(here)
    assert done.exit_code == 0
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[2:6] == [
        *(["partition", "from", "to", "messages", "due", "scored", "dead", "missing", "double", "altered", "nowhere"],),
        ["0", "0", "3", "3", "3", "3", "0", "0", "0", "0", "0"],
        ["1", "0", "1", "1", "1", "0", "1", "0", "0", "0", "0"],
        ["all", "4", "4", "3", "1", "0", "0", "0", "0"],
    ]
    assert done.stdout.splitlines()[-1] == "whole: 4 due, each came out exactly once, as it came in"
    assert done.stderr == ""


def test_window_without_payments_exits_2(scoring: Make):
    here = scoring(outputs=2)
    send(here, 3)
    here.run()
    done = fraud_verify(here, "--from", "3")
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (2, "nothing was checked: the window holds no payment")
    place = TopicPartition(here.settings.input_topic, 0, 5)
    send(here, 3)
    client = admin({"bootstrap.servers": str(here.kafka["bootstrap.servers"])})
    for answer in client.delete_records([place]).values():
        answer.result(30)
    done = fraud_verify(here)
    assert done.exit_code == 2
    assert f"note: {here.settings.input_topic}/0: not checked: its first retained offset is 5" in done.stdout


def test_missing_payments_exit_1_and_are_listed_up_to_show(scoring: Make):
    here = scoring(outputs=2)
    send(here, 30)
    done = fraud_verify(here, "--to", "30", "--show", "2")
    assert done.exit_code == 1
    topic = here.settings.input_topic
    assert f"MISSING: 30 never came out\n  {topic}/0/0 row 0\n  {topic}/0/1 row 0\n  … and 28 more" in done.stdout
    assert done.stdout.splitlines()[-1] == "NOT whole: 30 missing"
    plain = json.loads(fraud_verify(here, "--from", "0:28", "--to", "0:30", "--json").stdout)
    assert plain["whole"] is False
    assert [one["source"] for one in plain["missing"]] == [f"{topic}/0/28", f"{topic}/0/29"]
    (part,) = plain["partitions"]
    assert (part["start"], part["end"], part["due"], part["missing"], part["double"]) == (28, 30, 2, 2, 0)


def test_values_of_an_altered_payment_are_not_printed(scoring: Make):
    here = scoring(outputs=2)
    send(here, 1)
    here.run()
    (came,) = kafka_log.read_all(str(here.kafka["bootstrap.servers"]), here.settings.output_topic)
    client = kafka_log.producer(str(here.kafka["bootstrap.servers"]))
    value = (came.value() or b"").replace(b"16.18", b"77.77").replace(b"4000000000000000002", b"4000000000000000003")
    client.produce(here.settings.output_topic, value, came.key(), 0, headers=came.headers())
    assert client.flush(30) == 0
    done = fraud_verify(here)
    assert done.exit_code == 1
    assert f"ALTERED: 1 came out changed\n  {here.settings.input_topic}/0/0 row 0: cc_num, amt;" in done.stdout
    assert "DOUBLE: 1 came out more than once" in done.stdout
    for secret in ("16.18", "77.77", "400000000000000000"):
        assert secret not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--group", "nobody"), "fraud verify: nothing to check: group nobody has committed no offset"),
        (("--to", "x"), "fraud verify: --to x: give OFFSET or PARTITION:OFFSET"),
        (("--to", "9"), "offset 9 is past the last stable offset"),
        (("--topic", "nobody_made_this"), "fraud verify: topic nobody_made_this cannot be described"),
        (("--to", "1", "--output", "nobody_made_this"), "fraud verify: topic nobody_made_this cannot be described"),
    ],
)
def test_invalid_options_and_missing_topics_exit_2(scoring: Make, words: tuple[str, ...], said: str):
    here = scoring(outputs=2)
    send(here, 1)
    done = fraud_verify(here, *words)
    assert done.exit_code == 2
    assert said in done.stderr
    assert done.stdout == ""


def test_missing_broker_setting_exits_2():
    environment = {"KAFKA_BOOTSTRAP_SERVERS": "", "AIRFLOW_CONN_KAFKA_DEFAULT": ""}
    done = CliRunner().invoke(app, ["verify"], env=environment)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "no Kafka broker is configured" in done.stderr
