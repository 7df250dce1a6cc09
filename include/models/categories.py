"""Columns of pandas' dtype `category` that a boosted model was trained on, and the categories of each.

LightGBM and XGBoost replace a category by its number in the list of categories, so a frame of plain values is refused
or read wrongly. A value that is not in the list is missing, as it is in the frame of training.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from include.errors import ModelError
from include.models.estimator import final_estimator, is_booster, library_of

if TYPE_CHECKING:
    import pandas as pd

    from include.models.column import Column
    from include.models.model_run import ModelRun

_REMEDY = "Encode the column in a pipeline, for instance with scikit-learn's OrdinalEncoder"


def categories_of(model: Any, names: list[str], run: ModelRun) -> dict[str, pd.CategoricalDtype]:
    """Return the dtype of each categorical column, by its name; `names` are the model's columns in order. Raise
    ModelError where the categories are unknown: a whole number would be taken for the number of a category."""
    if hasattr(model, "best_estimator_"):
        # A search passes the frame on as it is.
        model = model.best_estimator_
    if final_estimator(model) is not model:
        return {}
    places = {"lightgbm": _lightgbm, "xgboost": _xgboost}.get(library_of(model) or "", lambda model: {})(model)
    if places is None:
        raise ModelError(
            f"model of run {run.run_id} is {type(model).__name__} with categorical columns whose categories are not "
            f"stored in the model. {_REMEDY}"
        )
    return {names[place]: dtype for place, dtype in places.items()} if names else {}


def typed_by(dtype: pd.CategoricalDtype | None, column: Column) -> Column:
    """Return the column with the type of its categories, unless the model's signature gives another."""
    if dtype is None or column.declared:
        return column
    kind = {"i": "int64", "u": "int64", "f": "float64", "b": "boolean"}.get(dtype.categories.dtype.kind, "text")
    return replace(column, kind=kind, declared=True)


def _lightgbm(model: Any) -> dict[int, pd.CategoricalDtype] | None:
    import pandas as pd

    booster = model if is_booster(model) else model.booster_
    if not booster.pandas_categorical:
        return {}
    # The first name is of a model in memory, the second of one that was read from a file.
    places = booster.params.get("categorical_column") or booster.params.get("categorical_feature") or []
    if len(places) != len(booster.pandas_categorical):
        return None
    return {
        place: pd.CategoricalDtype(categories)
        for place, categories in zip(sorted(places), booster.pandas_categorical, strict=True)
    }


def _xgboost(model: Any) -> dict[int, pd.CategoricalDtype] | None:
    import pandas as pd

    booster = model if is_booster(model) else model.get_booster()
    places = [place for place, kind in enumerate(booster.feature_types or ()) if kind == "c"]
    if not places:
        return {}
    # XGBoost before 3.1 stores none, nor does a model that was trained on numbers of categories.
    stored = booster.get_categories(export_to_arrow=True).to_arrow() if hasattr(booster, "get_categories") else None
    if not stored or any(stored[place][1] is None for place in places):
        return None
    return {place: pd.CategoricalDtype(stored[place][1].to_pandas()) for place in places}
