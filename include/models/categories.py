"""Find the columns that a boosted model was trained on with pandas' dtype `category`, and the categories of each.

LightGBM and XGBoost replace a category by its position in the list of categories, so they reject or misread a frame of
plain values. A value that is not in the list is missing, as it was in the training frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from include.errors import ModelError
from include.models.estimator import boosting_library, is_booster

if TYPE_CHECKING:
    import pandas as pd

    from include.models.column import Column
    from include.models.model_run import ModelRun

_REMEDY = "Encode the column in a pipeline, for instance with scikit-learn's OrdinalEncoder"


def categorical_dtypes(model: Any, columns: Sequence[Column], run: ModelRun) -> dict[str, pd.CategoricalDtype]:
    """Return the dtype of each categorical column by name; `columns` are the model's input columns, in order.

    Raise ModelError if the categories are unknown: a whole number would be read as the code of a category.
    """
    dtypes: dict[str, pd.CategoricalDtype] = {}
    for boosted in _boosted_models(model):
        by_index = (_lightgbm_dtypes if boosting_library(boosted) == "lightgbm" else _xgboost_dtypes)(boosted, columns)
        by_name = {columns[index].name: dtype for index, dtype in (by_index or {}).items()}
        if by_index is None or any(dtypes.setdefault(name, dtype) != dtype for name, dtype in by_name.items()):
            raise ModelError(
                f"model of run {run.run_id} is {type(model).__name__} with categorical columns whose categories are "
                f"not stored reliably. {_REMEDY}"
            )
    return dtypes


def with_category_kind(dtype: pd.CategoricalDtype | None, column: Column) -> Column:
    """Return the column with the kind of its categories, which may differ from the kind in the model's signature."""
    if dtype is None:
        return column
    kind = {"i": "int64", "u": "int64", "f": "float64", "b": "boolean"}.get(dtype.categories.dtype.kind, "text")
    return replace(column, kind=kind, declared=True)


def _boosted_models(model: Any) -> Iterator[Any]:
    """Yield the LightGBM and XGBoost models that get the frame unchanged.

    These are the model itself, or the models inside a search, a calibration, a voting or a stacking classifier.
    """
    if boosting_library(model) in ("lightgbm", "xgboost"):
        yield model
        return
    inner = [getattr(model, name, None) for name in ("best_estimator_", "estimator_")]
    inner += [getattr(one, "estimator", None) for one in getattr(model, "calibrated_classifiers_", ())]
    estimators = getattr(model, "estimators_", None)
    inner += estimators if isinstance(estimators, list) else []
    for one in inner:
        if one is not None and one is not model:
            yield from _boosted_models(one)


def _lightgbm_dtypes(model: Any, columns: Sequence[Column]) -> dict[int, pd.CategoricalDtype] | None:
    """Return the dtype of each categorical column by its index, None if the categories are not certain."""
    import pandas as pd

    booster = model if is_booster(model) else model.booster_
    category_lists = booster.pandas_categorical
    if not category_lists:
        return {}
    # A model in memory has the first parameter, a model that was read from a file the second.
    parameter = booster.params.get("categorical_column") or booster.params.get("categorical_feature") or []
    indices = sorted(index for index in parameter if isinstance(index, int)) if isinstance(parameter, list) else []
    if len(indices) != len(category_lists):
        return None
    dtypes = {index: pd.CategoricalDtype(categories) for index, categories in zip(indices, category_lists, strict=True)}
    # LightGBM stores two things: which columns are categorical, and the categories of the columns of pandas' dtype
    # `category`. They belong to the same columns unless `categorical_feature` was given.
    features = _lightgbm_features(booster)
    for index, dtype in dtypes.items():
        if not _category_codes(features[index]) <= set(range(-1, len(dtype.categories))) or _has_fractions(dtype):
            return None
    numeric = [dtype for index, dtype in dtypes.items() if not _is_text(dtype, columns[index])]
    # A column of numbers from 0 to the last code of some categories may be the column that these categories belong to.
    code_ranges = {f"[0:{len(dtype.categories) - 1}]" for dtype in numeric}
    if any(feature in code_ranges for index, feature in enumerate(features) if index not in dtypes):
        return None
    return dtypes


def _lightgbm_features(booster: Any) -> list[str]:
    """Return for each column its range of values, as in `[0:3]`, or the codes of its categories, as in `0:2:1`."""
    header = booster.model_to_string(num_iteration=1)
    (line,) = (line for line in header.split("\n") if line.startswith("feature_infos="))
    return str(line.partition("=")[2]).split(" ")


def _category_codes(feature: str) -> set[int]:
    return set() if feature.startswith("[") or feature == "none" else {int(code) for code in feature.split(":")}


def _is_text(dtype: pd.CategoricalDtype, column: Column) -> bool:
    return column.kind == "text" and all(isinstance(value, str) for value in dtype.categories)


def _has_fractions(dtype: pd.CategoricalDtype) -> bool:
    """Return whether a category is not a whole number: such a float32 equals no number in a payment."""
    return dtype.categories.dtype.kind == "f" and not all(value.is_integer() for value in dtype.categories)


def _xgboost_dtypes(model: Any, columns: Sequence[Column]) -> dict[int, pd.CategoricalDtype] | None:
    """Return the dtype of each categorical column by its index, None if the categories are not certain."""
    import pandas as pd
    from pyarrow.lib import ArrowException

    booster = model if is_booster(model) else model.get_booster()
    indices = [index for index, kind in enumerate(booster.feature_types or ()) if kind == "c"]
    if not indices:
        return {}
    try:
        # XGBoost before 3.1 stores no categories, and neither does a model that was trained on their numbers.
        stored = booster.get_categories(export_to_arrow=True).to_arrow() if hasattr(booster, "get_categories") else None
        if not stored or any(stored[index][1] is None for index in indices):
            return None
        dtypes = {index: pd.CategoricalDtype(stored[index][1].to_pandas()) for index in indices}
    except (ValueError, ArrowException):
        return None
    # XGBoost 3.2 splits texts that are not ASCII at the wrong positions.
    texts = [value for dtype in dtypes.values() for value in dtype.categories if isinstance(value, str)]
    if not all(text.isascii() for text in texts) or any(map(_has_fractions, dtypes.values())):
        return None
    return dtypes
