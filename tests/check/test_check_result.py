"""Each check with a fault that it must report. Faults of encryption and rights are in tests/security."""

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


def results_of(check: Callable[[], Iterator[CheckResult]]) -> dict[str, CheckResult]:
    return {result.name: result for result in run_checks([("tried", check)])}


def kafka(pipeline: Scoring) -> dict[str, CheckResult]:
    return results_of(lambda: check_kafka(pipeline.cluster, pipeline.settings))


def test_kafka_passes(scoring: Make) -> None:
    pipeline = scoring(partitions=2)
    results = kafka(pipeline)
    assert [result.ok for result in results.values()] == [True] * 9
    assert results[f"topic {pipeline.settings.input_topic}"].text == "2 partitions, right Read"
    assert results[f"topic {pipeline.settings.output_topic}"].text == "1 partitions, rights Write and Read"
    assert results[f"transactional ids {pipeline.settings.ledger_group}/…"].ok


def test_unreachable_broker_is_named(scoring: Make, unused_address: str) -> None:
    pipeline = scoring()
    results = results_of(
        lambda: check_kafka(Cluster({"bootstrap.servers": unused_address, "log_level": 0}), pipeline.settings)
    )
    assert list(results) == ["tried"]
    assert f"at {unused_address}: check that the broker is running" in results["tried"].text


@pytest.mark.parametrize("setting", ["output_topic", "output_dead_letter_topic"])
def test_missing_topic_is_named(scoring: Make, setting: str) -> None:
    pipeline = scoring().change(**{setting: "no_such_topic"})
    failed = [result for result in kafka(pipeline).values() if not result.ok]
    assert [(result.name, result.text.partition(":")[0]) for result in failed] == [
        ("topic no_such_topic", "does not exist")
    ]
    assert f"or set FRAUD_{setting.upper()} to another" in failed[0].text


@pytest.mark.parametrize("setting", ["group", "ledger_group"])
def test_group_in_use_is_reported_with_its_member(scoring: Make, setting: str) -> None:
    pipeline = scoring()
    group = getattr(pipeline.settings, setting)
    other = Consumer({**pipeline.kafka, "group.id": group, "client.id": "the-old-consumer"})
    other.subscribe([pipeline.settings.input_topic])
    try:
        wait_until(lambda: other.poll(0.2) or other.assignment(), "the other consumer does not join", 30)
        result = kafka(pipeline)[f"group {group}"]
    finally:
        other.close()
    assert not result.ok
    assert "in use by the-old-consumer" in result.text


def models(tmp_path: Path, model: str = "latest", **settings: object) -> dict[str, CheckResult]:
    chosen = Settings(model_cache=tmp_path / "models", **settings)  # type: ignore[arg-type]
    return results_of(lambda: check_models(chosen, model, DEFAULT))


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
def test_usable_model_passes_and_is_downloaded(experiment: str, tmp_path: Path) -> None:
    log_model(experiment, input_example=[{"amt": 1.0}], pip_requirements=["mlflow"])
    results = models(tmp_path, experiment=experiment)
    assert [result.ok for result in results.values()] == [True] * 3
    assert "latest (by default) is run" in results["model"].text
    assert list((tmp_path / "models").glob("*/MLmodel"))


@pytest.mark.filterwarnings("ignore")
def test_missing_library_of_a_model_is_named(experiment: str, tmp_path: Path) -> None:
    log_model(experiment, input_example=[{"amt": 1.0}], pip_requirements=["some-absent-package==1.2"])
    results = models(tmp_path, experiment=experiment)
    assert results["MLflow"].ok
    assert "some-absent-package (wanted ==1.2, found none)" in results["tried"].text


@pytest.mark.filterwarnings("ignore")
def test_experiments_that_could_go_live_are_named(experiment: str, tmp_path: Path) -> None:
    log_model(experiment, input_example=[{"amt": 1.0}], pip_requirements=["mlflow"])
    newer = f"empty {uuid.uuid4().hex}"
    mlflow.create_experiment(newer)
    results = models(tmp_path)
    assert "FRAUD_EXPERIMENT" in results, results
    text = results["FRAUD_EXPERIMENT"].text
    assert f"with a model, the newest first: '{experiment}'" in text
    assert f"newer and without a model, so the first model there would go live: '{newer}'" in text
    assert "FRAUD_EXPERIMENT" not in models(tmp_path, experiment=experiment)
    assert "FRAUD_EXPERIMENT" not in models(tmp_path, model="models:/no-such-model/1")


def test_experiment_without_a_model_is_reported(experiment: str, tmp_path: Path) -> None:
    results = models(tmp_path, experiment=experiment)
    assert results["MLflow"].ok
    assert "no finished run with a model in experiment" in results["tried"].text


def test_unreachable_mlflow_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, unused_address: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{unused_address}")
    results = models(tmp_path)
    assert list(results) == ["tried"]
    assert unused_address in results["tried"].text


def staging(url: str) -> CheckResult:
    (result,) = results_of(lambda: check_staging(Storage.open(url))).values()
    return result


def test_staging_area_passes_and_is_left_empty(service_environment: dict[str, str], tmp_path: Path) -> None:
    for url in (str(tmp_path), f"s3://staging/{uuid.uuid4().hex}"):
        assert staging(url).ok
    assert list(tmp_path.iterdir()) == []


def test_wrong_s3_key_is_reported_and_not_shown(
    service_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    result = staging("s3://staging/check")
    assert not result.ok
    assert "check the keys in the connection aws_default" in result.text
    assert "wrong" not in result.text


def test_missing_bucket_is_reported(service_environment: dict[str, str]) -> None:
    result = staging("s3://no-such-bucket/check")
    assert not result.ok
    assert "the bucket does not exist" in result.text


def test_unusable_staging_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = staging(str(tmp_path / "file" / "staging"))
    assert not result.ok
    assert ": Not a directory: set FRAUD_STAGING_URL" in result.text


def test_missing_recipients_are_reported() -> None:
    assert not results_of(lambda: check_addresses(Settings()))["tried"].ok
    results = results_of(lambda: check_addresses(Settings(recipients_text="a@x.org")))
    assert results["EMAIL_RECIPIENT"].text == "a@x.org"
    assert results["FRAUD_OPERATORS_EMAIL"].text.startswith("not set")


def test_text_of_a_librarys_error_is_not_shown() -> None:
    def fails() -> Iterator[CheckResult]:
        yield CheckResult("first", "ok")
        raise ValueError("password=secret")

    assert list(run_checks([("tried", fails)])) == [
        CheckResult("first", "ok"),
        CheckResult("tried", "failed with ValueError", ok=False),
    ]
