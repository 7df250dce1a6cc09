"""The airflow command on the live stack, without its scheduler, with topics, a group and a mailbox of its own."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.commands import AirflowInTurn, airflow
from tests.support.mail import Inbox
from tests.support.payments import FRAUD_FOR_BOTH, FRAUD_FOR_LATEST, GENUINE, payments
from tests.support.pipeline import DAG, Outputs, Pipeline, Sent, reported, reports, trans_nums


@dataclass(frozen=True)
class Shell:
    pipeline: Pipeline
    environment: dict[str, str]
    recipient: str
    outputs: Outputs

    def airflow(self, *words: str) -> str:
        return airflow(self.environment, *words)

    def send(self, *amounts: float) -> list[Sent]:
        return self.pipeline.send(payments(*amounts), self.environment["FRAUD_INPUT_TOPIC"])

    def runs(self) -> list[str]:
        return [run["dag_run_id"] for run in self.pipeline.api.runs(DAG, limit=100)]

    def check(self, inbox: Inbox, sent: list[Sent], predictions: list[int], model: str) -> None:
        arrived = self.outputs.scored(sent)
        assert [message.payment for message in arrived] == [
            one.payment.scored(prediction) for one, prediction in zip(sent, predictions, strict=True)
        ]
        assert [message.key for message in arrived] == [one.payment.key for one in sent]
        assert {message.headers["model_run_id"] for message in arrived} == {model}
        assert {message.headers["row"] for message in arrived} == {"0"}
        assert [float(message.headers["fraud_probability"]) for message in arrived] == predictions
        (batch,) = {message.headers["batch_id"] for message in arrived}
        mail = reports(inbox, self.recipient)[-1]
        assert str(mail["Subject"]).endswith(f"batch {batch}")
        frauds = [one for one, prediction in zip(sent, predictions, strict=True) if prediction]
        assert sorted(reported([mail])) == sorted(trans_nums(frauds))


@pytest.fixture
def shell(pipeline: Pipeline, topics: Callable[..., str], tmp_path: Path) -> Shell:
    # A scheduler would take up the tasks of a run that `dags test` makes.
    pipeline.rest()
    output, dead_letters, recipient = topics(2), topics(), f"{uuid.uuid4().hex}@example.com"
    own = {
        "FRAUD_INPUT_TOPIC": topics(2),
        "FRAUD_OUTPUT_TOPIC": output,
        "FRAUD_DEAD_LETTER_TOPIC": dead_letters,
        "FRAUD_GROUP": f"commands_{uuid.uuid4().hex}",
        "FRAUD_STAGING_URL": str(tmp_path),
        "EMAIL_RECIPIENT": recipient,
    }
    outputs = Outputs(pipeline.stack.bootstrap_servers, output, dead_letters)
    return Shell(pipeline, pipeline.stack.env | own, recipient, outputs)


def test_dags_test_and_tasks_test_run_the_whole_dag(shell: Shell, inbox: Inbox) -> None:
    models, outputs = shell.pipeline.models, shell.outputs
    sent = shell.send(GENUINE, FRAUD_FOR_LATEST, FRAUD_FOR_BOTH)
    shell.airflow("dags", "test", DAG)
    shell.check(inbox, sent, [0, 1, 1], models.latest)

    known = shell.runs()
    sent = shell.send(GENUINE, FRAUD_FOR_LATEST, FRAUD_FOR_BOTH)
    with AirflowInTurn(shell.environment) as in_turn:
        in_turn("dags", "test", DAG, "-c", '{"model": "previous"}')
        shell.check(inbox, sent, [0, 0, 1], models.previous)
        assert (outputs.count(), len(reports(inbox, shell.recipient))) == (6, 2)

        # `tasks test` ends well whatever the task does, so what counts is its effect.
        (run_id,) = [run for run in shell.runs() if run not in known]
        sent = shell.send(GENUINE, FRAUD_FOR_LATEST, FRAUD_FOR_BOTH)
        for task, published, mailed in [
            ("plan", 6, 2),
            ("drain", 6, 2),
            ("resolve_model", 6, 2),
            ("predict", 6, 2),
            ("publish", 9, 2),
            ("reports", 9, 2),
            ("email", 9, 3),
        ]:
            shard = ("--map-index", "0") if task in ("drain", "predict", "publish") else ()
            in_turn("tasks", "test", DAG, task, run_id, *shard)
            assert (outputs.count(), len(reports(inbox, shell.recipient))) == (published, mailed), task
    shell.check(inbox, sent, [0, 0, 1], models.previous)


def test_dags_test_refuses_invalid_configuration(shell: Shell) -> None:
    shell.send(GENUINE)
    with pytest.raises(subprocess.CalledProcessError) as failed:
        shell.airflow("dags", "test", DAG, "-c", '{"model": "newest"}')
    said = failed.value.stdout + failed.value.stderr
    assert "newest" in said
    assert "latest|previous" in said
    assert shell.outputs.count() == 0
