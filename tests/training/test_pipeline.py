from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from include.errors import TrainingError
from include.payments.columns import MEASURED
from include.training import payment_features
from include.training.pipeline import recipe


def test_payment_form_carries_code_named_by_its_digest(payments: pd.DataFrame, tmp_path: Path) -> None:
    pipeline, [file] = recipe("payment", trees=3, seed=1).fit(payments, tmp_path)

    text = Path(str(payment_features.__file__)).read_bytes()
    assert file.read_bytes() == text
    assert file.stem == f"payment_features_{hashlib.sha256(text).hexdigest()[:12]}"
    assert type(pipeline[0]).__module__ == file.stem
    assert [name for name, _ in pipeline.steps] == ["features", "fill", "scale", "smote", "forest"]
    assert tuple(pipeline.feature_names_in_) == payment_features.COLUMNS


def test_numeric_form_is_scaler_smote_forest_on_the_payments_numbers(payments: pd.DataFrame, tmp_path: Path) -> None:
    pipeline, code = recipe("numeric", trees=3, seed=1).fit(payments, tmp_path)

    assert code == []
    assert [name for name, _ in pipeline.steps] == ["scale", "smote", "forest"]
    assert list(pipeline.feature_names_in_) == ["amt", "lat", "long", "city_pop", "merch_lat", "merch_long"]


@pytest.mark.parametrize("form", ["payment", "numeric"])
def test_no_training_rows_stay_in_the_model(payments: pd.DataFrame, tmp_path: Path, form: str) -> None:
    pipeline, _ = recipe(form, trees=3, seed=1).fit(payments, tmp_path)

    smote = pipeline.named_steps["smote"]
    assert not [name for name in vars(smote) if name.endswith("_") and not name.startswith("_")]


def test_the_same_seed_gives_the_same_model(payments: pd.DataFrame, tmp_path: Path) -> None:
    first, second = (recipe("payment", trees=5, seed=1).fit(payments, tmp_path)[0] for _ in range(2))

    assert (first.predict_proba(payments) == second.predict_proba(payments)).all()


def test_payment_form_learns_from_and_scores_gaps(payments: pd.DataFrame, tmp_path: Path) -> None:
    gaps = payments.copy()
    gaps.loc[gaps.index[::7], ["amt", "dob", "lat", "gender", "category"]] = np.nan
    pipeline, _ = recipe("payment", trees=3, seed=1).fit(gaps, tmp_path)

    together = pipeline.predict_proba(gaps)
    alone = np.vstack([pipeline.predict_proba(gaps.iloc[[row]]) for row in range(15)])

    assert (alone == together[:15]).all()


def test_unknown_choices() -> None:
    with pytest.raises(TrainingError, match="'all'"):
        recipe("all", trees=3, seed=1)
    with pytest.raises(TrainingError, match="0 trees"):
        recipe("numeric", trees=0, seed=1)


def test_no_identifier_is_a_feature() -> None:
    assert not {"cc_num", "zip", "unix_time"} & set(MEASURED)
