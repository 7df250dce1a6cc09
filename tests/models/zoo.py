"""Make payments and small models of each kind, which train in less than a second."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import mlflow.sklearn
import numpy as np
import pandas as pd
from imblearn.over_sampling import SMOTE
from imblearn.pipeline import Pipeline as ImbalancedPipeline
from mlflow.models import ModelSignature, infer_signature
from sklearn.ensemble import RandomForestClassifier
from sklearn.preprocessing import StandardScaler

from include.models.model_run import ModelRun
from include.payments.columns import COLUMNS

NUMERIC = ["amt", "lat", "long", "city_pop", "unix_time", "merch_lat", "merch_long"]
REQUIREMENTS = ["scikit-learn"]


def payment(**changes: Any) -> dict[str, Any]:
    """Return a payment as it is on the topic, with `changes`; `...` removes a field."""
    values = (
        "2024-10-31 15:56:25", 377895991033232, "fraud_McDermott, Osinski and Morar", "home", 16.18, "Kim", "Myers",
        "F", "6881 King Isle", "Higganum", "CT", 6441, 41.4682, -72.5751, 5438, "Librarian, academic", "1964-11-17",
        "64b632ebfbc52a1075747f9301db22b8", 1730390185811, 41.581898, -73.130293, None,
    )  # fmt: skip
    whole = {**dict(zip(COLUMNS, values, strict=True)), **changes}
    return {name: value for name, value in whole.items() if value is not ...}


def history(rows: int = 400, seed: int = 7) -> tuple[pd.DataFrame, pd.Series]:
    """Return payments to train on and their labels: mostly the large ones are fraud, with some noise."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame([payment()] * rows).drop(columns="is_fraud")
    frame["cc_num"] = rng.integers(4 * 10**15, 5 * 10**15, rows)
    frame["amt"] = rng.gamma(2, 60, rows).round(2)
    frame["lat"] = rng.uniform(25, 48, rows)
    frame["long"] = rng.uniform(-120, -70, rows)
    frame["city_pop"] = rng.integers(100, 900_000, rows)
    frame["unix_time"] = 1_730_000_000_000 + rng.integers(0, 10**9, rows)
    frame["merch_lat"] = frame["lat"] + rng.normal(0, 1, rows)
    frame["merch_long"] = frame["long"] + rng.normal(0, 1, rows)
    frame["category"] = rng.choice(["home", "travel", "misc_net"], rows)
    frame["gender"] = rng.choice(["F", "M"], rows)
    fraud = (frame["amt"] + rng.normal(0, 40, rows) > 160).astype(int)
    return frame, fraud


def seed_pipeline(trees: int = 15) -> ImbalancedPipeline:
    frame, fraud = history()
    steps = [
        ("scale", StandardScaler()),
        ("smote", SMOTE(random_state=1)),
        ("forest", RandomForestClassifier(trees, random_state=1, n_jobs=-1)),
    ]
    return ImbalancedPipeline(steps).fit(frame[NUMERIC], fraud)


def save_seed_model(folder: Path) -> Path:
    """Save a pipeline of the numeric columns as cloudpickle, with a signature of all 21 columns."""
    return save_sklearn(folder, seed_pipeline(), signature=signature())


def save_sklearn(folder: Path, model: Any, **options: Any) -> Path:
    options = {"serialization_format": "cloudpickle", "pip_requirements": REQUIREMENTS, **options}
    with quiet():
        mlflow.sklearn.save_model(model, folder, **options)
    return folder


def save_pyfunc(folder: Path, model: mlflow.pyfunc.PythonModel, columns: list[str]) -> Path:
    """Save a pyfunc model with a signature of the columns, or without a signature if there are none."""
    with quiet():
        mlflow.pyfunc.save_model(
            folder,
            python_model=model,
            signature=signature(*columns) if columns else None,
            pip_requirements=REQUIREMENTS,
        )
    return folder


def signature(*columns: str) -> ModelSignature:
    """Return a signature of the columns, or of all 21."""
    frame, fraud = history()
    with quiet():
        return infer_signature(frame[list(columns) or list(frame)], fraud)


@contextmanager
def quiet() -> Iterator[None]:
    """Ignore MLflow's advice on signatures, examples and pickles."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def run_of(threshold: float | None = None, **changes: Any) -> ModelRun:
    values: dict[str, Any] = {
        "run_id": "0" * 32, "model_uri": "models:/m-0", "experiment": "payments", "name": None, "version": None,
        "asked": "latest", "chosen_by": "default", "reason": None, "url": "", "threshold": threshold,
    }  # fmt: skip
    return ModelRun(**{**values, **changes})
