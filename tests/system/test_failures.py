"""Failed runs: operators get one mail, and the next successful run scores the remaining payments."""

from __future__ import annotations

import time

from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition

from dev.stack.kafka import admin
from tests.support import kafka_log
from tests.support.mail import Inbox
from tests.support.payments import GENUINE, payment, payments
from tests.support.pipeline import DAG, Outputs, Pipeline, alarms
from tests.support.waiting import wait_until


def test_operators_get_one_mail_for_a_lasting_failure(pipeline: Pipeline, outputs: Outputs, inbox: Inbox) -> None:
    gone = {"model": "0" * 32}
    _, sent = pipeline.score(payments(GENUINE), gone, state="failed")
    wait_until(lambda: alarms(inbox), "operators were not told")
    run_id = pipeline.finish(pipeline.api.trigger(DAG, gone), "failed")
    pipeline.await_log(run_id, "resolve_model", f"has no run {'0' * 32}")
    assert pipeline.states(run_id)["catch_up"] == "upstream_failed"
    outputs.require_none(sent)

    pipeline.finish(pipeline.api.trigger(DAG))
    outputs.scored(sent)
    (told,) = alarms(inbox)
    assert told.startswith(f"{DAG}: resolve_model failed: ModelNotFoundError, MLflow at ")


def test_alarm_for_old_payments_is_mailed_once(pipeline: Pipeline, outputs: Outputs, inbox: Inbox) -> None:
    """The alarm is in the log, in the XCom and in one mail; the run succeeds."""
    pipeline.settle()
    client = kafka_log.producer(pipeline.stack.bootstrap_servers)
    for _ in range(2):
        one = payment(GENUINE)
        client.produce("topic_1", one.message, one.key, timestamp=int((time.time() - 20 * 60) * 1000))
        assert client.flush(30) == 0
        run_id = pipeline.finish(pipeline.api.trigger(DAG))
        (alarm,) = _raised(pipeline, run_id, "plan")
        assert alarm["kind"] == "behind: age"
        assert "had waited 20 min" in alarm["sentence"]
        pipeline.await_log(run_id, "plan", alarm["sentence"])
        wait_until(lambda: alarms(inbox), "operators were not told")
    run_id = pipeline.finish(pipeline.api.trigger(DAG))
    assert _raised(pipeline, run_id, "plan") == []
    (told,) = alarms(inbox)
    assert "Payments waited too long" in told


def test_alarm_for_dead_letters_names_reasons_and_its_end_is_mailed(pipeline: Pipeline, inbox: Inbox) -> None:
    """The run succeeds, because every message was published."""
    pipeline.settle()
    client = kafka_log.producer(pipeline.stack.bootstrap_servers)
    for number in range(30):
        client.produce("topic_1", b"" if number % 3 else b"no json", b"a key")
    assert client.flush(30) == 0
    run_id = pipeline.finish(pipeline.api.trigger(DAG))
    (alarm,) = _raised(pipeline, run_id, "reports")
    assert "30 of 30 messages of batch" in alarm["sentence"]
    pipeline.await_log(run_id, "reports", alarm["sentence"])
    (told,) = wait_until(lambda: alarms(inbox), "operators were not told")
    assert told.startswith(f"{DAG}: Many messages became dead letters: 30 of 30 messages of batch")
    assert "empty_value 20, not_json 10" in told

    run_id, _ = pipeline.score(payments(GENUINE, GENUINE))
    wait_until(lambda: len(alarms(inbox)) == 2, "operators were not told of the end")
    assert alarms(inbox)[1].startswith(f"{DAG}: The share of dead letters is normal again: 0 of 2 messages")


def test_run_fails_if_publish_fails(pipeline: Pipeline, outputs: Outputs, inbox: Inbox) -> None:
    """An operator sets the group's offset during a run, which skips the first of two payments."""
    pipeline.settle()
    first = payment(GENUINE)
    sent = pipeline.send([first, payment(GENUINE, cc_num=first.values["cc_num"])])
    pipeline.breakpoint.set("before fence")
    run_id = pipeline.api.trigger(DAG)
    pipeline.breakpoint.wait()
    topic, partition, offset = sent[1].source.split("/")
    _set_offset(pipeline, TopicPartition(topic, int(partition), int(offset)))
    pipeline.breakpoint.go_on()

    pipeline.finish(run_id, "failed")
    states = pipeline.states(run_id)
    assert (states["publish"], states["catch_up"], states["reports"]) == ("failed", "upstream_failed", "success")
    assert pipeline.task(run_id, "publish")["try_number"] == 1
    pipeline.await_log(
        run_id, "publish", f"the committed offset of group fraud_scoring on {topic}/{partition} is {offset}"
    )
    (told,) = wait_until(lambda: alarms(inbox), "operators were not told")
    assert told.startswith(f"{DAG}: publish failed: OffsetsChangedError")
    outputs.require_none(sent)

    pipeline.finish(pipeline.api.trigger(DAG))
    outputs.scored(sent[1:])
    outputs.require_none(sent[:1])


def _raised(pipeline: Pipeline, run_id: str, task_id: str) -> list[dict[str, str]]:
    """Return the alarms that a task raised."""
    return [alarm for alarm in pipeline.api.xcom(DAG, run_id, task_id, "alarms") if alarm["cause"]]


def _set_offset(pipeline: Pipeline, place: TopicPartition) -> None:
    client = admin({"bootstrap.servers": pipeline.stack.bootstrap_servers})
    wanted = ConsumerGroupTopicPartitions("fraud_scoring", [place])
    (done,) = client.alter_consumer_group_offsets([wanted]).values()
    assert not [answer.error for answer in done.result(timeout=30).topic_partitions if answer.error]
