"""The two kinds of model that can be trained, each an imbalanced-learn pipeline around a random forest."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from imblearn.over_sampling import SMOTE, SMOTENC
from imblearn.pipeline import Pipeline
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import StandardScaler

from include.errors import TrainingError
from include.models import features_module, payment_features
from include.payments.columns import MEASURED, PREDICTION
from include.training.training_data import SMOTE_NEIGHBOURS

# Features whose values SMOTENC must copy, not interpolate.
_CATEGORICAL_PREFIXES = ("night", "weekday", "category_", "gender_")
FeatureSet = Literal["payment", "numeric"]
"""Which features a model takes: computed from the payment, or the payment's own numbers (docs/training.md says why only
those)."""
SAMPLINGS = ("none", "weights", "smote", "smotenc")
"""How a training makes up for few frauds; docs/training.md compares them. The first one is the default."""


@dataclass(frozen=True)
class PipelineConfig:
    """What is trained: the columns taken, and the code that has to travel with the model."""

    form: FeatureSet
    columns: tuple[str, ...]
    trees: int
    seed: int
    sampling: str = SAMPLINGS[0]

    def fit(self, payments: pd.DataFrame, folder: Path) -> tuple[Pipeline, list[Path]]:
        """The fitted pipeline and the files of code it needs, written to `folder`."""
        rows, labels = payments[list(self.columns)], payments[PREDICTION]
        steps: list[tuple[str, Any]] = [("scale", StandardScaler())]
        code: list[Path] = []
        names: list[str] = []
        if self.form == "payment":
            features, file = _copy_features(folder)
            names = list(clone(features).fit(rows).get_feature_names_out())
            fill = SimpleImputer(strategy="median", keep_empty_features=True)
            steps = [("features", features), ("fill", fill), *steps]
            code = [file]
        if sampler := self._sampler(names):
            # Stored models name this step "smote", whichever sampler it is.
            steps.append(("smote", sampler))
        weights = "balanced" if self.sampling == "weights" else None
        forest = RandomForestClassifier(self.trees, class_weight=weights, n_jobs=-1, random_state=self.seed)
        pipeline = Pipeline([*steps, ("forest", forest)]).fit(rows, labels)
        # A fitted SMOTE keeps the training set's frauds, and predicting never asks it: they stay out of the model.
        pipeline.steps = [(name, clone(step) if name == "smote" else step) for name, step in pipeline.steps]
        return pipeline, code

    def _sampler(self, names: list[str]) -> SMOTE | None:
        if self.sampling == "smote":
            return SMOTE(random_state=self.seed, k_neighbors=SMOTE_NEIGHBOURS)
        if self.sampling == "smotenc":
            categories = [place for place, name in enumerate(names) if name.startswith(_CATEGORICAL_PREFIXES)]
            return SMOTENC(categories, random_state=self.seed, k_neighbors=SMOTE_NEIGHBOURS)
        return None


def pipeline_config(form: str, trees: int, seed: int, sampling: str = SAMPLINGS[0]) -> PipelineConfig:
    if trees < 1:
        raise TrainingError(f"{trees} trees: give at least 1")
    if sampling not in SAMPLINGS:
        raise TrainingError(f"sampling {sampling!r}: give {', '.join(SAMPLINGS[:-1])} or {SAMPLINGS[-1]}")
    if form == "payment":
        return PipelineConfig("payment", payment_features.COLUMNS, trees, seed, sampling)
    if form == "numeric":
        if sampling == "smotenc":
            raise TrainingError("sampling smotenc needs categories, and numeric features have none: give smote")
        return PipelineConfig("numeric", MEASURED, trees, seed, sampling)
    raise TrainingError(f"features {form!r}: give payment or numeric")


def _copy_features(folder: Path) -> tuple[Any, Path]:
    """The transformer, from a copy of its module, which goes with the model."""
    file = folder / f"{features_module.module_name()}.py"
    file.write_bytes(features_module.FILE.read_bytes())
    return sys.modules[features_module.register_module(file)].PaymentFeatures(), file
