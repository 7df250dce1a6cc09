from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from imblearn.over_sampling import SMOTE, SMOTENC
from imblearn.pipeline import Pipeline
from sklearn.ensemble import RandomForestClassifier

from include.errors import TrainingError
from include.models import payment_features
from include.models.features_module import register_module
from include.models.trust import TRUSTED_TYPES
from include.payments.columns import MEASURED
from include.producer.simulator import Simulator
from include.training.evaluation import compute_metrics
from include.training.pipeline import SAMPLINGS, pipeline_config
from include.training.training_data import split, validate


def test_payment_features_come_with_code_named_by_its_digest(payments: pd.DataFrame, tmp_path: Path) -> None:
    pipeline, [file] = pipeline_config("payment", trees=3, seed=1).fit(payments, tmp_path)

    text = Path(str(payment_features.__file__)).read_bytes()
    assert file.read_bytes() == text
    assert file.stem == f"payment_features_{hashlib.sha256(text).hexdigest()[:12]}"
    assert type(pipeline[0]).__module__ == file.stem
    assert [name for name, _ in pipeline.steps] == ["features", "fill", "scale", "forest"]
    assert tuple(pipeline.feature_names_in_) == payment_features.COLUMNS


def test_numeric_features_are_scaled_numbers_of_the_payment(payments: pd.DataFrame, tmp_path: Path) -> None:
    pipeline, code = pipeline_config("numeric", trees=3, seed=1).fit(payments, tmp_path)

    assert code == []
    assert [name for name, _ in pipeline.steps] == ["scale", "forest"]
    assert list(pipeline.feature_names_in_) == ["amt", "lat", "long", "city_pop", "merch_lat", "merch_long"]


COMBINATIONS = [
    *(("payment", sampling) for sampling in SAMPLINGS),
    *(("numeric", sampling) for sampling in SAMPLINGS if sampling != "smotenc"),
]


@pytest.mark.parametrize(("features", "sampling"), COMBINATIONS)
def test_model_of_each_sampling_loads_without_pickles_and_ends_with_a_forest(
    payments: pd.DataFrame, tmp_path: Path, features: str, sampling: str
) -> None:
    """Scoring is fast for a forest as the last step of a pipeline, but not for derived classes."""
    pipeline, _ = pipeline_config(features, 3, 1, sampling).fit(payments, tmp_path)
    types = [*TRUSTED_TYPES, f"{register_module()}.PaymentFeatures"]

    loaded = skops.io.loads(skops.io.dumps(pipeline), trusted=types)

    assert (type(loaded), type(loaded[-1])) == (Pipeline, RandomForestClassifier)
    assert (loaded.predict_proba(payments[list(loaded.feature_names_in_)]) == predicted(pipeline, payments)).all()
    assert loaded[-1].class_weight == ("balanced" if sampling == "weights" else None)
    samplers = {"smote": SMOTE, "smotenc": SMOTENC}
    assert [type(step) for name, step in loaded.steps if name == "smote"] == [
        samplers[name] for name in (sampling,) if name in samplers
    ]


def predicted(pipeline: Pipeline, payments: pd.DataFrame) -> Any:
    return pipeline.predict_proba(payments[list(pipeline.feature_names_in_)])


def test_smotenc_creates_no_fractions_of_categories(payments: pd.DataFrame, tmp_path: Path) -> None:
    pipeline, _ = pipeline_config("payment", 3, 1, "smotenc").fit(payments, tmp_path)
    names = pipeline[0].get_feature_names_out()
    rows = pipeline[:3].transform(payments[list(payment_features.COLUMNS)])

    synthetic = pipeline.named_steps["smote"].fit_resample(rows, payments["is_fraud"])[0][len(rows) :]

    assert len(synthetic)
    fractions = [
        name
        for index, name in enumerate(names)
        if name.startswith(("night", "weekday", "category_", "gender_"))
        and not np.isin(synthetic[:, index], rows[:, index]).all()
    ]
    assert fractions == []


def test_default_sampling_has_better_metrics_than_smote(tmp_path: Path) -> None:
    difference = {"average_precision": 0.0, "brier_score": 0.0, "calibration_error": 0.0}
    for seed in (1, 2):
        simulated = Simulator(seed=seed, per_day=2000, fraud_share=0.02, cards=200).frame(days=4)
        parts = split(validate(simulated, payment_features.COLUMNS, MEASURED))
        metrics = []
        for config in (pipeline_config("payment", 25, seed), pipeline_config("payment", 25, seed, "smote")):
            pipeline, _ = config.fit(parts.train, tmp_path)
            probabilities = predicted(pipeline, parts.held_out)[:, 1]
            metrics.append(compute_metrics(parts.held_out["is_fraud"].to_numpy(), probabilities > 0.5, probabilities))
        difference = {name: total + metrics[0][name] - metrics[1][name] for name, total in difference.items()}
    assert difference["average_precision"] > 0
    assert difference["brier_score"] < 0
    assert difference["calibration_error"] < 0


@pytest.mark.parametrize(("features", "sampling"), [("payment", "smote"), ("payment", "smotenc"), ("numeric", "smote")])
def test_model_holds_no_training_rows(payments: pd.DataFrame, tmp_path: Path, features: str, sampling: str) -> None:
    pipeline, _ = pipeline_config(features, 3, 1, sampling).fit(payments, tmp_path)

    smote = pipeline.named_steps["smote"]
    assert not [name for name in vars(smote) if name.endswith("_") and not name.startswith("_")]


def test_same_seed_gives_same_model(payments: pd.DataFrame, tmp_path: Path) -> None:
    first, second = (pipeline_config("payment", trees=5, seed=1).fit(payments, tmp_path)[0] for _ in range(2))

    assert (first.predict_proba(payments) == second.predict_proba(payments)).all()


def test_payment_features_accept_missing_values(payments: pd.DataFrame, tmp_path: Path) -> None:
    gaps = payments.copy()
    gaps.loc[gaps.index[::7], ["amt", "dob", "lat", "gender", "category"]] = np.nan
    pipeline, _ = pipeline_config("payment", trees=3, seed=1).fit(gaps, tmp_path)

    together = pipeline.predict_proba(gaps)
    alone = np.vstack([pipeline.predict_proba(gaps.iloc[[row]]) for row in range(15)])

    assert (alone == together[:15]).all()


def test_error_names_invalid_option() -> None:
    with pytest.raises(TrainingError, match="'all'"):
        pipeline_config("all", trees=3, seed=1)
    with pytest.raises(TrainingError, match="0 trees"):
        pipeline_config("numeric", trees=0, seed=1)
    with pytest.raises(TrainingError, match="'adasyn': give none, weights, smote or smotenc"):
        pipeline_config("payment", 3, 1, "adasyn")
    with pytest.raises(TrainingError, match="smotenc needs categories"):
        pipeline_config("numeric", 3, 1, "smotenc")


def test_no_identifier_is_a_feature() -> None:
    assert not {"cc_num", "zip", "unix_time"} & set(MEASURED)
