"""Run whole batches with models of many kinds, from a real MLflow to predictions on a real Kafka."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
import yaml

from include.batch.predict import predict
from include.errors import ModelError, ModelInputError
from include.models.resolve import resolve
from tests.integration.test_protocol import committed_offsets, dead, scored, send
from tests.models.conftest import Lab
from tests.models.model_cases import model_cases, payment_frame, without_warnings
from tests.models.zoo import payment
from tests.support import kafka_log
from tests.support.scoring import Scoring

CASES = model_cases()
PAYMENTS = [payment(amt=20.0), payment(amt=250.0), payment(amt=900.0), payment(amt=40.0, category=None)]


def message(each: dict[str, Any]) -> bytes:
    return json.dumps({"columns": list(each), "index": [0], "data": [list(each.values())]}).encode()


@pytest.fixture
def pipeline(scoring: Callable[..., Scoring], service_environment: dict[str, str], tmp_path: Path) -> Scoring:
    pipeline = scoring(1, model_cache=tmp_path / "cache")
    send(pipeline, *map(message, PAYMENTS))
    return pipeline


def run(pipeline: Scoring, lab: Lab, folder: Path, threshold: str | None = None) -> None:
    experiment = lab.experiment()
    run_id = lab.run(experiment, files=folder)
    if threshold:
        lab.client.set_tag(run_id, "fraud_threshold", threshold)
    manifest = pipeline.drain()
    model = resolve("latest", experiment=experiment, chosen_by="default")
    without_warnings(lambda: predict(pipeline.settings, pipeline.storage, manifest, model))
    pipeline.publish(manifest)


SCORED = [
    "one-hot that ignores unknown texts", "imbalanced-learn pipeline", "calibrated", "LightGBM of categories",
    "XGBoost by scikit-learn", "XGBoost's Booster", "bare CatBoost", "pyfunc probabilities", "pyfunc records",
    "pyfunc frame without a name", "pyfunc re-sorted series", "pyfunc label and probability",
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "threshold"), [*((name, None) for name in SCORED), *((name, "0.3") for name in ("LightGBM", "CatBoost"))]
)
def test_published_score_equals_the_score_of_the_payment_alone(
    pipeline: Scoring, lab: Lab, tmp_path: Path, name: str, threshold: str | None
) -> None:
    case = without_warnings(CASES[name])
    run(pipeline, lab, case.save(tmp_path / "m"), threshold)
    assert dead(pipeline) == []
    messages = kafka_log.read_all(pipeline.kafka["bootstrap.servers"], pipeline.settings.output_topic)
    assert len(messages) == len(PAYMENTS)
    for each, published in zip(PAYMENTS, messages, strict=True):
        label, probability = without_warnings(lambda each=each: case.expected_score(payment_frame(each, case.names)))
        headers = dict(published.headers() or [])
        assert float(headers["fraud_probability"]) == pytest.approx(probability, abs=1e-6)
        expected = label if threshold is None else int(probability >= float(threshold))
        assert json.loads(published.value() or b"")[0]["is_fraud"] == expected


@pytest.mark.parametrize(
    "name",
    ["isolation forest", "pyfunc isolation forest", "pyfunc labels 1 and 2", "pyfunc percent", "XGBoost margins"],
)
def test_refused_model_publishes_nothing(pipeline: Scoring, lab: Lab, tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError):
        run(pipeline, lab, without_warnings(CASES[name]).save(tmp_path / "m"))
    assert (scored(pipeline), dead(pipeline)) == ([], [])
    assert committed_offsets(pipeline) == {0: None}
    assert pipeline.drain().payments == len(PAYMENTS)


def test_missing_columns_are_found_before_any_payment_is_scored(
    pipeline: Scoring, lab: Lab, seed_folder: Path, tmp_path: Path
) -> None:
    """No payment becomes a dead letter because of a column that only the model has, and nothing is published."""
    folder = copytree(seed_folder, tmp_path / "device")
    text = yaml.safe_load((folder / "MLmodel").read_text())
    del text["flavors"]["sklearn"]
    text["signature"]["inputs"] = json.dumps([{"name": "device", "type": "double"}])
    (folder / "MLmodel").write_text(yaml.safe_dump(text))
    with pytest.raises(ModelInputError, match="needs columns that payments do not have: device; payments have: "):
        run(pipeline, lab, folder)
    assert pipeline.drain().payments == len(PAYMENTS)
    assert (scored(pipeline), dead(pipeline)) == ([], [])
