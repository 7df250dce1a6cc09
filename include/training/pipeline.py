"""The two kinds of model that can be trained, each an imbalanced-learn pipeline around a random forest."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from imblearn.over_sampling import SMOTE
from imblearn.pipeline import Pipeline
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import StandardScaler

from include.errors import TrainingError
from include.payments.columns import MEASURED, PREDICTION
from include.training import payment_features, travelling_features
from include.training.data import SMOTE_NEIGHBOURS

Form = Literal["payment", "numeric"]
"""The payment's numbers that mean something as numbers; docs/training.md says why the others do not."""


@dataclass(frozen=True)
class Recipe:
    """What is trained: the columns taken, and the code that has to travel with the model."""

    form: Form
    columns: tuple[str, ...]
    trees: int
    seed: int

    def fit(self, payments: pd.DataFrame, folder: Path) -> tuple[Pipeline, list[Path]]:
        """The fitted pipeline and the files of code it needs, written to `folder`."""
        steps: list[tuple[str, Any]] = [
            ("scale", StandardScaler()),
            ("smote", SMOTE(random_state=self.seed, k_neighbors=SMOTE_NEIGHBOURS)),
            ("forest", RandomForestClassifier(n_estimators=self.trees, n_jobs=-1, random_state=self.seed)),
        ]
        code: list[Path] = []
        if self.form == "payment":
            features, file = _travelling_features(folder)
            steps = [
                ("features", features),
                ("fill", SimpleImputer(strategy="median", keep_empty_features=True)),
                *steps,
            ]
            code = [file]
        pipeline = Pipeline(steps).fit(payments[list(self.columns)], payments[PREDICTION])
        # A fitted SMOTE keeps the training set's frauds, and predicting never asks it: they stay out of the model.
        at = [name for name, _ in pipeline.steps].index("smote")
        pipeline.steps[at] = ("smote", clone(pipeline.steps[at][1]))
        return pipeline, code


def recipe(form: str, trees: int, seed: int) -> Recipe:
    if trees < 1:
        raise TrainingError(f"{trees} trees: give at least 1")
    if form == "payment":
        return Recipe("payment", payment_features.COLUMNS, trees, seed)
    if form == "numeric":
        return Recipe("numeric", MEASURED, trees, seed)
    raise TrainingError(f"features {form!r}: give payment or numeric")


def _travelling_features(folder: Path) -> tuple[Any, Path]:
    """The transformer, from a copy of its module, which goes with the model."""
    file = folder / f"{travelling_features.module_name()}.py"
    file.write_bytes(travelling_features.FILE.read_bytes())
    return sys.modules[travelling_features.register(file)].PaymentFeatures(), file
