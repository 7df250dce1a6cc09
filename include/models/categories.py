"""Columns of pandas' dtype `category` that a boosted model was trained on, and the categories of each.

LightGBM and XGBoost replace a category by its number in the list of categories, so a frame of plain values is refused
or read wrongly. A value that is not in the list is missing, as it is in the frame of training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from include.errors import ModelError
from include.models.estimator import is_booster, library_of

if TYPE_CHECKING:
    import pandas as pd

    from include.models.column import Column
    from include.models.model_run import ModelRun

_REMEDY = "Encode the column in a pipeline, for instance with scikit-learn's OrdinalEncoder"


def categories_of(model: Any, columns: Sequence[Column], run: ModelRun) -> dict[str, pd.CategoricalDtype]:
    """Return the dtype of each categorical column, by its name; `columns` are the model's, in order. Raise ModelError
    where the categories are unknown: a whole number would be read as the code of a category."""
    found: dict[str, pd.CategoricalDtype] = {}
    for boosted in _boosted_in(model):
        places = (_lightgbm if library_of(boosted) == "lightgbm" else _xgboost)(boosted, columns)
        dtypes = {columns[place].name: dtype for place, dtype in (places or {}).items()}
        if places is None or any(found.setdefault(name, dtype) != dtype for name, dtype in dtypes.items()):
            raise ModelError(
                f"model of run {run.run_id} is {type(model).__name__} with categorical columns whose categories are "
                f"not stored for certain. {_REMEDY}"
            )
    return found


def _boosted_in(model: Any) -> Iterator[Any]:
    """Yield the models of LightGBM and XGBoost that get the frame as it is: the model itself, or those within a search,
    a calibration, a vote or a stack."""
    if library_of(model) in ("lightgbm", "xgboost"):
        yield model
        return
    inner = [getattr(model, name, None) for name in ("best_estimator_", "estimator_")]
    inner += [getattr(one, "estimator", None) for one in getattr(model, "calibrated_classifiers_", ())]
    estimators = getattr(model, "estimators_", None)
    inner += estimators if isinstance(estimators, list) else []
    for one in inner:
        if one is not None and one is not model:
            yield from _boosted_in(one)


def typed_by(dtype: pd.CategoricalDtype | None, column: Column) -> Column:
    """Return the column with the type of its categories, which may be another one than that of its signature."""
    if dtype is None:
        return column
    kind = {"i": "int64", "u": "int64", "f": "float64", "b": "boolean"}.get(dtype.categories.dtype.kind, "text")
    return replace(column, kind=kind, declared=True)


def _lightgbm(model: Any, columns: Sequence[Column]) -> dict[int, pd.CategoricalDtype] | None:
    import pandas as pd

    booster = model if is_booster(model) else model.booster_
    lists = booster.pandas_categorical
    if not lists:
        return {}
    # The first name is of a model in memory, the second of one that was read from a file.
    listed = booster.params.get("categorical_column") or booster.params.get("categorical_feature") or []
    places = sorted(place for place in listed if isinstance(place, int)) if isinstance(listed, list) else []
    if len(places) != len(lists):
        return None
    found = {place: pd.CategoricalDtype(categories) for place, categories in zip(places, lists, strict=True)}
    # LightGBM stores which columns are categorical, and the categories of those of pandas' dtype `category`: the same
    # columns unless `categorical_feature` was given.
    infos = _infos(booster)
    for place, dtype in found.items():
        if not _codes(infos[place]) <= set(range(-1, len(dtype.categories))) or _is_fraction(dtype):
            return None
    numbers = {place for place, dtype in found.items() if not _holds_text(dtype, columns[place])}
    suspects = {f"[0:{len(found[place].categories) - 1}]" for place in numbers}
    if any(info in suspects for place, info in enumerate(infos) if place not in found):
        return None
    return found


def _infos(booster: Any) -> list[str]:
    """Return of each column the range of its values, `[0:3]`, or the codes of its categories, `0:2:1`."""
    header = booster.model_to_string(num_iteration=1)
    (line,) = (line for line in header.split("\n") if line.startswith("feature_infos="))
    return str(line.partition("=")[2]).split(" ")


def _codes(info: str) -> set[int]:
    return set() if info.startswith("[") or info == "none" else {int(code) for code in info.split(":")}


def _holds_text(dtype: pd.CategoricalDtype, column: Column) -> bool:
    return column.kind == "text" and all(isinstance(value, str) for value in dtype.categories)


def _is_fraction(dtype: pd.CategoricalDtype) -> bool:
    """Return whether a category is no whole number: a float32 equals no number of a payment."""
    return dtype.categories.dtype.kind == "f" and not all(value.is_integer() for value in dtype.categories)


def _xgboost(model: Any, columns: Sequence[Column]) -> dict[int, pd.CategoricalDtype] | None:
    import pandas as pd
    from pyarrow.lib import ArrowException

    booster = model if is_booster(model) else model.get_booster()
    places = [place for place, kind in enumerate(booster.feature_types or ()) if kind == "c"]
    if not places:
        return {}
    try:
        # XGBoost before 3.1 stores none, nor does a model that was trained on numbers of categories.
        stored = booster.get_categories(export_to_arrow=True).to_arrow() if hasattr(booster, "get_categories") else None
        if not stored or any(stored[place][1] is None for place in places):
            return None
        found = {place: pd.CategoricalDtype(stored[place][1].to_pandas()) for place in places}
    except (ValueError, ArrowException):
        return None
    # XGBoost 3.2 cuts texts that are not ASCII at the wrong places.
    texts = [value for dtype in found.values() for value in dtype.categories if isinstance(value, str)]
    if not all(text.isascii() for text in texts) or any(map(_is_fraction, found.values())):
        return None
    return found
