"""Kinds of models through a whole run: resolved from a real MLflow, fetched, asked, and published on a real Kafka."""

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
from tests.models.model_cases import frame_of_training, model_cases, silently
from tests.models.zoo import payment
from tests.support import kafka_log
from tests.support.scoring import Scoring

CASES = model_cases()
PAYMENTS = [payment(amt=20.0), payment(amt=250.0), payment(amt=900.0), payment(amt=40.0, category=None)]


def message(each: dict[str, Any]) -> bytes:
    return json.dumps({"columns": list(each), "index": [0], "data": [list(each.values())]}).encode()


@pytest.fixture
def here(scoring: Callable[..., Scoring], service_environment: dict[str, str], tmp_path: Path) -> Scoring:
    found = scoring(1, model_cache=tmp_path / "cache")
    send(found, *map(message, PAYMENTS))
    return found


def run(here: Scoring, lab: Lab, folder: Path, threshold: str | None = None) -> None:
    experiment = lab.experiment()
    run_id = lab.run(experiment, files=folder)
    if threshold:
        lab.client.set_tag(run_id, "fraud_threshold", threshold)
    manifest = here.drain()
    model = resolve("latest", experiment=experiment, chosen_by="default")
    silently(lambda: predict(here.settings, here.storage, manifest, model))
    here.publish(manifest)


SCORED = [
    "one-hot that ignores unknown texts", "imbalanced-learn pipeline", "calibrated", "LightGBM of categories",
    "XGBoost by scikit-learn", "XGBoost's Booster", "bare CatBoost", "pyfunc probabilities", "pyfunc records",
    "pyfunc frame without a name", "pyfunc re-sorted series", "pyfunc label and probability",
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "threshold"), [*((name, None) for name in SCORED), *((name, "0.3") for name in ("LightGBM", "CatBoost"))]
)
def test_each_payment_is_published_with_what_the_model_gives_for_it_alone(
    here: Scoring, lab: Lab, tmp_path: Path, name: str, threshold: str | None
) -> None:
    case = silently(CASES[name])
    run(here, lab, case.save(tmp_path / "m"), threshold)
    assert dead(here) == []
    found = kafka_log.read_all(here.kafka["bootstrap.servers"], here.settings.output_topic)
    assert len(found) == len(PAYMENTS)
    for each, published in zip(PAYMENTS, found, strict=True):
        label, probability = silently(lambda each=each: case.expected_score(frame_of_training(each, case.names)))
        headers = dict(published.headers() or [])
        assert float(headers["fraud_probability"]) == pytest.approx(probability, abs=1e-6)
        expected = label if threshold is None else int(probability >= float(threshold))
        assert json.loads(published.value() or b"")[0]["is_fraud"] == expected


@pytest.mark.parametrize(
    "name",
    ["isolation forest", "pyfunc isolation forest", "pyfunc labels 1 and 2", "pyfunc percent", "XGBoost margins"],
)
def test_refused_model_publishes_nothing(here: Scoring, lab: Lab, tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError):
        run(here, lab, silently(CASES[name]).save(tmp_path / "m"))
    assert (scored(here), dead(here)) == ([], [])
    assert committed_offsets(here) == {0: None}
    assert here.drain().payments == len(PAYMENTS)


def test_columns_that_no_payment_has_are_found_before_any_payment_is_scored(
    here: Scoring, lab: Lab, seed_folder: Path, tmp_path: Path
) -> None:
    """No payment becomes a dead letter for what its model lacks, and nothing is published."""
    folder = copytree(seed_folder, tmp_path / "device")
    text = yaml.safe_load((folder / "MLmodel").read_text())
    del text["flavors"]["sklearn"]
    text["signature"]["inputs"] = json.dumps([{"name": "device", "type": "double"}])
    (folder / "MLmodel").write_text(yaml.safe_dump(text))
    with pytest.raises(ModelInputError, match="wants columns that payments do not have: device; payments have: "):
        run(here, lab, folder)
    assert here.drain().payments == len(PAYMENTS)
    assert (scored(here), dead(here)) == ([], [])
