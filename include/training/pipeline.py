"""Build the imbalanced-learn pipelines that can be trained, each with a random forest as its last step."""

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
"""What the forest is trained on: features computed from the payment, or the payment's own numbers (docs/training.md
says why only those)."""
SAMPLINGS = ("none", "weights", "smote", "smotenc")
"""How training compensates for the small share of frauds; docs/training.md compares them. The first is the default."""


@dataclass(frozen=True)
class PipelineConfig:
    """Hold what defines a pipeline. `columns` are the payment's columns that it takes."""

    features: FeatureSet
    columns: tuple[str, ...]
    trees: int
    seed: int
    sampling: str = SAMPLINGS[0]

    def fit(self, payments: pd.DataFrame, folder: Path) -> tuple[Pipeline, list[Path]]:
        """Return the fitted pipeline, and the code files that must be stored with it, which are written to `folder`."""
        rows, labels = payments[list(self.columns)], payments[PREDICTION]
        steps: list[tuple[str, Any]] = [("scale", StandardScaler())]
        code_files: list[Path] = []
        feature_names: list[str] = []
        if self.features == "payment":
            features, file = _copy_features(folder)
            feature_names = list(clone(features).fit(rows).get_feature_names_out())
            fill = SimpleImputer(strategy="median", keep_empty_features=True)
            steps = [("features", features), ("fill", fill), *steps]
            code_files = [file]
        if sampler := self._sampler(feature_names):
            # Stored models name this step "smote" for each sampler.
            steps.append(("smote", sampler))
        weights = "balanced" if self.sampling == "weights" else None
        forest = RandomForestClassifier(self.trees, class_weight=weights, n_jobs=-1, random_state=self.seed)
        pipeline = Pipeline([*steps, ("forest", forest)]).fit(rows, labels)
        # A fitted SMOTE holds the training set's frauds. Predicting does not use it, so it is stored unfitted.
        pipeline.steps = [(name, clone(step) if name == "smote" else step) for name, step in pipeline.steps]
        return pipeline, code_files

    def _sampler(self, feature_names: list[str]) -> SMOTE | None:
        if self.sampling == "smote":
            return SMOTE(random_state=self.seed, k_neighbors=SMOTE_NEIGHBOURS)
        if self.sampling == "smotenc":
            categorical = [index for index, name in enumerate(feature_names) if name.startswith(_CATEGORICAL_PREFIXES)]
            return SMOTENC(categorical, random_state=self.seed, k_neighbors=SMOTE_NEIGHBOURS)
        return None


def pipeline_config(features: str, trees: int, seed: int, sampling: str = SAMPLINGS[0]) -> PipelineConfig:
    """Return the configuration. Raise TrainingError if a value is invalid or does not fit the others."""
    if trees < 1:
        raise TrainingError(f"{trees} trees: give at least 1")
    if sampling not in SAMPLINGS:
        raise TrainingError(f"sampling {sampling!r}: give {', '.join(SAMPLINGS[:-1])} or {SAMPLINGS[-1]}")
    if features == "payment":
        return PipelineConfig("payment", payment_features.COLUMNS, trees, seed, sampling)
    if features == "numeric":
        if sampling == "smotenc":
            raise TrainingError("sampling smotenc needs categories, and numeric features have none: give smote")
        return PipelineConfig("numeric", MEASURED, trees, seed, sampling)
    raise TrainingError(f"features {features!r}: give payment or numeric")


def _copy_features(folder: Path) -> tuple[Any, Path]:
    """Return the transformer from a copy of its module, and the copy, which is stored with the model."""
    file = folder / f"{features_module.module_name()}.py"
    file.write_bytes(features_module.FILE.read_bytes())
    return sys.modules[features_module.register_module(file)].PaymentFeatures(), file
