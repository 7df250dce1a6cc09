"""The ledger: from a payment to a model trained on it, by DAGs and documented commands; triggers of recording."""

from __future__ import annotations

import csv
import io
import uuid
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import quote

import boto3
import pandas as pd
import pytest
from mlflow import MlflowClient

from include.payments.columns import COLUMNS
from tests.support import kafka_log
from tests.support.commands import fraud
from tests.support.group import Group
from tests.support.ledger import query
from tests.support.ledger_scenario import DAG as RECORDER
from tests.support.ledger_scenario import LedgerScenario
from tests.support.live_stack import LiveStack
from tests.support.mail import Inbox
from tests.support.payments import FRAUD_FOR_BOTH, GENUINE, payments
from tests.support.pipeline import ANALYSTS, Outputs, Pipeline, Sent, alarms, reported, reports, trans_nums
from tests.support.topics import Arrived
from tests.support.waiting import wait_until

EXPORTER = "export_confirmed"


@pytest.fixture
def recorder(pipeline: Pipeline) -> Iterator[LedgerScenario]:
    """The DAG record_predictions, ready to be triggered by the test."""
    pipeline.api.wait_for_dag(RECORDER)
    pipeline.read_again(RECORDER, scheduled=False)
    yield LedgerScenario(pipeline.stack, pipeline.breakpoint)
    pipeline.rest(RECORDER)


@pytest.fixture
def scheduled_recorder(pipeline: Pipeline, recorder: LedgerScenario) -> Iterator[LedgerScenario]:
    """The same DAG as `make up` has it, triggered by published batches."""
    with pipeline.on_schedule(RECORDER):
        yield recorder


@pytest.fixture
def model_name(pipeline: Pipeline) -> Iterator[str]:
    """The name of a registered model and its experiment. Both are deleted, so that `latest` is another test's again."""
    name = f"confirmed {uuid.uuid4().hex[:8]}"
    yield name
    client = MlflowClient(pipeline.stack.mlflow_uri)
    if experiment := client.get_experiment_by_name(name):
        client.delete_experiment(experiment.experiment_id)
        client.delete_registered_model(name)


def test_payment_is_scored_recorded_confirmed_exported_and_trained_on(
    pipeline: Pipeline, recorder: LedgerScenario, outputs: Outputs, inbox: Inbox, model_name: str, tmp_path: Path
) -> None:
    stack, ledger = pipeline.stack, pipeline.stack.ledger
    pipeline.settle()
    begin = Group(stack.bootstrap_servers).ends()

    batch, arrived = _score_simulated(pipeline, outputs, 150)
    (mail,) = reports(inbox)
    frauds = reported([mail])
    assert len(frauds) > 3
    run_id = recorder.run()
    assert recorder.api.xcom(RECORDER, run_id, "record_batches")["batches"] >= 1
    _check_traced(fraud(stack.env, "trace", frauds[0]), pipeline, batch, mail)

    # The first is left out, and told by itself; so is one that the model took for genuine.
    verdicts = {name: number % 3 > 0 for number, name in enumerate(frauds[1:])}
    file = tmp_path / "fraud_detection_report.csv"
    _fill_in(mail, file, verdicts)
    said = fraud(stack.env, "confirm", "--csv", str(file), "--by", "dora")
    assert f"applied {len(verdicts)}, changed 0, unchanged 0, passed over 1, bad 0" in said
    missed = next(one.payment["trans_num"] for one in arrived if not one.payment["is_fraud"])
    for name in (frauds[0], missed):
        assert f"{name}: fraud (applied)" in fraud(stack.env, "confirm", name, "fraud", "--by", "emil")
        verdicts[name] = True
    assert "fraud, by emil" in fraud(stack.env, "trace", missed)

    _check_exported(pipeline, verdicts)
    trained = _train(pipeline, model_name, verdicts)

    batch, arrived = _score_simulated(pipeline, outputs, 20)
    assert {one.headers["model_run_id"] for one in arrived} == {trained}
    recorder.run()
    assert query(ledger, "SELECT model_run_id, scored FROM ledger.batches WHERE batch_id = %s", batch) == [
        (trained, 20)
    ]
    window = [word for number, offset in begin.items() for word in ("--from", f"{number}:{offset}")]
    assert "complete: 170 due, each came out once, 170 rows" in fraud(stack.env, "reconcile", *window)


def test_published_batch_triggers_record_predictions(pipeline: Pipeline, scheduled_recorder: LedgerScenario) -> None:
    run_id, sent = pipeline.score(payments(GENUINE, FRAUD_FOR_BOTH))
    scheduled_recorder.finish(_woken_by(scheduled_recorder, run_id))
    assert _recorded(pipeline.stack, sent) == 2


def test_scoring_goes_on_without_ledger_which_then_catches_up(
    pipeline: Pipeline, scheduled_recorder: LedgerScenario, outputs: Outputs, inbox: Inbox
) -> None:
    pipeline.stack.stop("ledger")
    try:
        run_id, sent = pipeline.score(payments(GENUINE, FRAUD_FOR_BOTH))
        outputs.scored(sent)
        assert reported(reports(inbox)) == trans_nums(sent[1:])
        woken = _woken_by(scheduled_recorder, run_id)
        scheduled_recorder.await_failed_try(woken)
    finally:
        pipeline.stack.start("ledger")
    scheduled_recorder.finish(woken)
    assert _recorded(pipeline.stack, sent) == 2


def test_alarm_for_foreign_messages_names_reasons_and_its_end_is_mailed(
    pipeline: Pipeline, recorder: LedgerScenario, inbox: Inbox
) -> None:
    """The run succeeds, because every prediction was recorded."""
    recorder.process_backlog()
    already = len(alarms(inbox))
    kafka_log.send(pipeline.stack.bootstrap_servers, "topic_2", [b"no prediction"] * 12)
    run_id = recorder.run()
    (alarm,) = recorder.api.xcom(RECORDER, run_id, RECORDER, "alarms")
    assert "12 of 12 messages of topic_2 became dead letters" in alarm["sentence"]
    told = wait_until(lambda: alarms(inbox)[already:], "operators were not told")
    assert told[0].startswith(f"{RECORDER}: Many messages of the output topic became dead letters: {alarm['sentence']}")
    assert "no_headers 12" in told[0]

    pipeline.score(payments(GENUINE, GENUINE))
    recorder.run()
    told = wait_until(lambda: alarms(inbox)[already + 1 :], "operators were not told of the end")
    assert told[0].startswith(
        f"{RECORDER}: The share of dead letters of the output topic is normal again: 0 of 2 messages"
    )


def _score_simulated(pipeline: Pipeline, outputs: Outputs, count: int) -> tuple[str, list[Arrived]]:
    """Score simulated payments; return their batch and their output."""
    known = set(outputs.sources())
    fraud(pipeline.stack.env, "produce", "simulate", "--rate", "0", "--count", str(count), "--fraud-share", "0.3")
    run_id = pipeline.finish(pipeline.api.trigger("score_payments"))
    arrived = [one for one in outputs.all() if one.headers["source"] not in known]
    assert len(arrived) == count
    batch: str = pipeline.counts(run_id, "plan")["batch"]
    assert {one.headers["batch_id"] for one in arrived} == {batch}
    return batch, arrived


def _check_traced(told: str, pipeline: Pipeline, batch: str, mail: EmailMessage) -> None:
    """Check model, batch, run and recipients in `fraud trace`."""
    (run_id,) = query(pipeline.stack.ledger, "SELECT dag_run_id FROM ledger.batches WHERE batch_id = %s", batch)[0]
    address = f"{pipeline.stack.env['AIRFLOW_URL']}/dags/score_payments/runs/{run_id}"
    lines = {line.split()[0]: line for line in told.splitlines() if line.strip()}
    assert lines["FRAUD"].startswith("  FRAUD (probability 1), scored on ")
    assert f"{pipeline.models.name} version 1, MLflow run {pipeline.models.latest}" in lines["model"]
    assert "latest, the default, FRAUD_MODEL" in lines["chosen"]
    assert f" {batch}, offsets [" in lines["batch"]
    assert f"run {run_id}: {address}" in lines["Airflow"].replace("%3A", ":").replace("%2B", "+")
    assert f"{ANALYSTS} on " in lines["notified"]
    assert lines["notified"].endswith(f"Message-ID {mail['Message-ID']}")
    assert "not yet" in lines["confirmed"]


def _fill_in(mail: EmailMessage, file: Path, verdicts: dict[str, bool]) -> None:
    """Fill in the attachment as a reviewer does: the column verdict, empty for payments without a verdict."""
    (attachment,) = mail.iter_attachments()
    content = attachment.get_content()
    text = content.decode() if isinstance(content, bytes) else content
    header, *rows = csv.reader(io.StringIO(text.lstrip("\ufeff"), newline=""))
    words = {True: "fraud", False: "genuine", None: ""}
    place = header.index("trans_num")
    with file.open("w", newline="") as written:
        csv.writer(written).writerows(
            [[*header, "verdict"], *([*row, words[verdicts.get(row[place])]] for row in rows)]
        )


def _check_exported(pipeline: Pipeline, verdicts: dict[str, bool]) -> None:
    api, env = pipeline.api, pipeline.stack.env
    pipeline.read_again(EXPORTER, scheduled=False)
    api.pause(EXPORTER, False)
    run_id = api.trigger(EXPORTER)
    assert api.wait_for_run(EXPORTER, run_id)["state"] == "success"
    api.pause(EXPORTER, True)
    counts = api.xcom(EXPORTER, run_id, "export_confirmed")
    assert counts["files"] == 1
    assert counts["payments"] >= len(verdicts)

    bucket, _, prefix = env["FRAUD_CONFIRMED_URL"].removeprefix("s3://").partition("/")
    client = boto3.Session(env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"]).client(
        "s3", endpoint_url=env["AWS_ENDPOINT_URL_S3"], region_name="us-east-1"
    )
    newest = max(found["Key"] for found in client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/")["Contents"])
    stored = pd.read_parquet(io.BytesIO(client.get_object(Bucket=bucket, Key=newest)["Body"].read()))
    client.close()
    assert tuple(stored.columns) == COLUMNS
    assert verdicts.items() <= dict(zip(stored["trans_num"], stored["is_fraud"] == 1, strict=True)).items()


def _train(pipeline: Pipeline, name: str, verdicts: dict[str, bool]) -> str:
    """Train on all payments that were ever confirmed on this stack, and return the MLflow run."""
    env = pipeline.stack.env
    size = "--rows", "4000", "--trees", "10"
    fraud(env, "train", "--confirmed", env["FRAUD_CONFIRMED_URL"], *size, "--experiment", name, "--name", name)
    client = MlflowClient(pipeline.stack.mlflow_uri)
    (version,) = client.search_model_versions(f"name = '{name}'")
    learnt = client.get_run(version.run_id).data.params
    assert learnt["data"].startswith("simulator, ")
    assert int(learnt["confirmed_payments"]) >= len(verdicts)
    assert int(learnt["confirmed_frauds"]) >= sum(verdicts.values())
    return str(version.run_id)


def _woken_by(recorder: LedgerScenario, run_id: str) -> str:
    """Return the run of record_predictions that Airflow started after this run published."""

    def woken() -> str | None:
        for run in recorder.api.runs(RECORDER):
            if run["run_type"] == "asset_triggered":
                path = f"dags/{RECORDER}/dagRuns/{quote(run['dag_run_id'], safe='')}/upstreamAssetEvents"
                events = recorder.api.request("GET", path)["asset_events"]
                if run_id in {event["source_run_id"] for event in events}:
                    return str(run["dag_run_id"])
        return None

    return str(wait_until(woken, f"{run_id} woke nobody"))


def _recorded(stack: LiveStack, sent: list[Sent]) -> int:
    found = query(stack.ledger, "SELECT count(*) FROM ledger.predictions WHERE trans_num = ANY(%s)", trans_nums(sent))
    return int(found[0][0])
