"""Each thing that can be wrong, made wrong on purpose; what needs encryption or rights is in tests/security."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest
from confluent_kafka import Consumer

from include.check.check_result import CheckResult, run_checks
from include.check.kafka_check import check_kafka
from include.check.mail_check import check_addresses
from include.check.models_check import check_models
from include.check.staging_check import check_staging
from include.kafka.cluster import Cluster
from include.models.resolve import DEFAULT
from include.settings import Settings
from include.storage.staging import Storage
from tests.support.scoring import Scoring
from tests.support.waiting import wait_until

Make = Callable[..., Scoring]


def found(check: Callable[[], Iterator[CheckResult]]) -> dict[str, CheckResult]:
    return {one.name: one for one in run_checks([("tried", check)])}


def kafka(here: Scoring) -> dict[str, CheckResult]:
    return found(lambda: check_kafka(here.cluster, here.settings))


def test_kafka_that_is_well(scoring: Make) -> None:
    here = scoring(partitions=2)
    results = kafka(here)
    assert [one.ok for one in results.values()] == [True] * 9
    assert results[f"topic {here.settings.input_topic}"].text == "2 partitions, right Read"
    assert results[f"topic {here.settings.output_topic}"].text == "1 partitions, rights Write and Read"
    assert results[f"transactional ids {here.settings.ledger_group}/…"].ok


def test_no_broker(scoring: Make, nobody: str) -> None:
    here = scoring()
    results = found(lambda: check_kafka(Cluster({"bootstrap.servers": nobody, "log_level": 0}), here.settings))
    assert list(results) == ["tried"]
    assert f"at {nobody}: check that the broker is running" in results["tried"].text


@pytest.mark.parametrize("which", ["output_topic", "output_dead_letter_topic"])
def test_a_topic_that_is_missing(scoring: Make, which: str) -> None:
    here = scoring().change(**{which: "no_such_topic"})
    wrong = [one for one in kafka(here).values() if not one.ok]
    assert [(one.name, one.text.partition(":")[0]) for one in wrong] == [("topic no_such_topic", "does not exist")]
    assert f"or set FRAUD_{which.upper()} to another" in wrong[0].text


@pytest.mark.parametrize("which", ["group", "ledger_group"])
def test_a_group_that_somebody_else_is_in(scoring: Make, which: str) -> None:
    here = scoring()
    group = getattr(here.settings, which)
    other = Consumer({**here.kafka, "group.id": group, "client.id": "the-old-consumer"})
    other.subscribe([here.settings.input_topic])
    try:
        wait_until(lambda: other.poll(0.2) or other.assignment(), "the other consumer does not join", 30)
        result = kafka(here)[f"group {group}"]
    finally:
        other.close()
    assert not result.ok
    assert "in use by the-old-consumer" in result.text


def models(tmp_path: Path, model: str = "latest", **settings: object) -> dict[str, CheckResult]:
    chosen = Settings(model_cache=tmp_path / "models", **settings)  # type: ignore[arg-type]
    return found(lambda: check_models(chosen, model, DEFAULT))


@pytest.fixture
def experiment(service_environment: dict[str, str]) -> str:
    name = f"check {uuid.uuid4().hex}"
    mlflow.MlflowClient().create_experiment(name)
    return name


def log_model(experiment: str, **model: object) -> None:
    mlflow.set_experiment(experiment)
    with mlflow.start_run():
        mlflow.pyfunc.log_model(name="model", python_model=lambda model_input: model_input, **model)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore")
def test_a_model_that_can_score(experiment: str, tmp_path: Path) -> None:
    log_model(experiment, input_example=[{"amt": 1.0}], pip_requirements=["mlflow"])
    results = models(tmp_path, experiment=experiment)
    assert [one.ok for one in results.values()] == [True] * 3
    assert "latest (by default) is run" in results["model"].text
    assert list((tmp_path / "models").glob("*/MLmodel"))


@pytest.mark.filterwarnings("ignore")
def test_a_model_that_needs_a_library(experiment: str, tmp_path: Path) -> None:
    log_model(experiment, input_example=[{"amt": 1.0}], pip_requirements=["some-absent-package==1.2"])
    results = models(tmp_path, experiment=experiment)
    assert results["MLflow"].ok
    assert "some-absent-package (wanted ==1.2, found none)" in results["tried"].text


@pytest.mark.filterwarnings("ignore")
def test_without_an_experiment_the_check_names_those_that_could_go_live(experiment: str, tmp_path: Path) -> None:
    log_model(experiment, input_example=[{"amt": 1.0}], pip_requirements=["mlflow"])
    newer = f"empty {uuid.uuid4().hex}"
    mlflow.create_experiment(newer)
    results = models(tmp_path)
    assert "FRAUD_EXPERIMENT" in results, results
    text = results["FRAUD_EXPERIMENT"].text
    assert f"with a model, the newest first: '{experiment}'" in text
    assert f"newer and without a model, so the first model there would go live: '{newer}'" in text
    assert "FRAUD_EXPERIMENT" not in models(tmp_path, experiment=experiment)
    assert "FRAUD_EXPERIMENT" not in models(tmp_path, model="models:/nobodys/1")


def test_no_model(experiment: str, tmp_path: Path) -> None:
    results = models(tmp_path, experiment=experiment)
    assert results["MLflow"].ok
    assert "no finished run with a model in experiment" in results["tried"].text


def test_no_mlflow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, nobody: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{nobody}")
    results = models(tmp_path)
    assert list(results) == ["tried"]
    assert nobody in results["tried"].text


def staging(url: str) -> CheckResult:
    (result,) = found(lambda: check_staging(Storage.open(url))).values()
    return result


def test_a_staging_area_that_can_be_used(service_environment: dict[str, str], tmp_path: Path) -> None:
    for url in (str(tmp_path), f"s3://staging/{uuid.uuid4().hex}"):
        assert staging(url).ok
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_key_for_s3(service_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    result = staging("s3://staging/check")
    assert not result.ok
    assert "check the keys in the connection aws_default" in result.text
    assert "wrong" not in result.text


def test_a_bucket_that_is_missing(service_environment: dict[str, str]) -> None:
    result = staging("s3://no-such-bucket/check")
    assert not result.ok
    assert "the bucket does not exist" in result.text


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = staging(str(tmp_path / "file" / "staging"))
    assert not result.ok
    assert ": Not a directory: set FRAUD_STAGING_URL" in result.text


def test_nobody_who_gets_reports() -> None:
    assert not found(lambda: check_addresses(Settings()))["tried"].ok
    results = found(lambda: check_addresses(Settings(recipients_text="a@x.org")))
    assert results["EMAIL_RECIPIENT"].text == "a@x.org"
    assert results["FRAUD_OPERATORS_EMAIL"].text.startswith("nobody")


def test_what_a_foreign_error_says_is_not_shown() -> None:
    def fails() -> Iterator[CheckResult]:
        yield CheckResult("first", "well")
        raise ValueError("password=secret")

    assert list(run_checks([("tried", fails)])) == [
        CheckResult("first", "well"),
        CheckResult("tried", "failed with ValueError", ok=False),
    ]
