"""Any classifier or pyfunc model that MLflow can load, behind one way to ask it."""

from __future__ import annotations

import importlib
import logging
import re
import warnings
from collections.abc import Callable, Collection, Iterable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.errors import ModelError, ModelInputError, ModelRequirementsError, UntrustedModelError
from include.models import trust
from include.models.categories import categories_of, typed_by
from include.models.classifier import booster_scorer, classifier_scorer
from include.models.column import Column, column_of_payment
from include.models.description import Description
from include.models.estimator import is_boosted, is_booster, require_classifier
from include.models.model_run import ModelRun
from include.models.output_reader import OutputReader
from include.models.outputs import Scores
from include.models.pickle_cache import load_or_build_if_skops

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

_OTHER_VERSION = "Train it with the version here, install the other, or choose another model"
# Flavors whose pyfunc model gives labels only, though the model itself knows probabilities.
_NATIVE = ("xgboost", "lightgbm", "catboost")


class LoadedModel:
    """A model that can be asked.

    `strict`: MLflow enforces the signature, so a value of another type is refused. `is_classifier`: the model itself
    names the classes 0 and 1. `by_position`: it knows its columns by their place only.
    `outputs_checked`: whether include/models/vetting.py has accepted the model's output; `rows_compared`: how many
    payments it has scored again, to see that a score depends on its own row only.
    """

    def __init__(
        self,
        run: ModelRun,
        folder: Path,
        takes: tuple[Column, ...],
        *,
        strict: bool,
        is_classifier: bool,
        by_position: bool,
        ask: Callable[[pd.DataFrame], Scores],
    ) -> None:
        self.run = run
        self.folder = folder
        self.takes = takes
        self.strict = strict
        self.is_classifier = is_classifier
        self._by_position = by_position
        self.outputs_checked = False
        self.rows_compared = 0
        self._ask = ask

    def predict(self, frame: pd.DataFrame) -> Scores:
        """Raises whatever the model raises, and ModelError where what it returns is no prediction."""
        if frame.shape[1] < len(self.takes) and (self._by_position or not frame.shape[1]):
            # The columns behind a missing one would be taken for it.
            raise KeyError([column.name for column in self.takes if column.name not in frame])
        # A model may change its frame: the caller's stays as it is.
        frame = frame.copy(deep=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self._ask(frame)

    def input_example(self) -> pd.DataFrame | None:
        """The rows that were stored with the model as an example of what it takes."""
        import pandas as pd
        from mlflow.models import Model

        example = Model.load(str(self.folder)).load_input_example(str(self.folder))
        if not isinstance(example, pd.DataFrame):
            return None
        return example[[column.name for column in self.takes if column.name in example]]


def load(run: ModelRun, folder: Path, *, allow_pickles: bool = True) -> LoadedModel:
    """`folder` holds the model's files, as `ModelCache.fetch` gives it. Raises UntrustedModelError where pickles are
    not allowed and the model could hold one."""
    description = Description.of(folder)
    if not allow_pickles:
        return _sklearn(run, description, folder, lambda: trust.load(run.run_id, folder, description))
    if "sklearn" in description.flavors:
        return _sklearn(run, description, folder, lambda: _mlflow_sklearn(folder, description))
    native = next((flavor for flavor in _NATIVE if flavor in description.flavors), None)
    if native is not None:
        return _sklearn(run, description, folder, partial(_native, folder, native))
    if "python_function" in description.flavors:
        return _pyfunc(run, folder, description)
    raise ModelError(
        f"model of run {run.run_id} has no flavor sklearn or python_function, only {', '.join(description.flavors)}"
    )


def _mlflow_sklearn(folder: Path, description: Description) -> Any:
    from mlflow.sklearn import load_model

    return load_or_build_if_skops(folder, description, lambda: load_model(str(folder)))  # type: ignore[no-untyped-call]


def _native(folder: Path, flavor: str) -> Any:
    return importlib.import_module(f"mlflow.{flavor}").load_model(str(folder))


def _sklearn(run: ModelRun, description: Description, folder: Path, loader: Callable[[], Any]) -> LoadedModel:
    model = _loaded(run, description, loader)
    require_classifier(model, run)
    names = _own_names(model)
    takes = _takes(names, run, description)
    known = True
    if is_booster(model):
        ask = booster_scorer(model, run)
    elif getattr(model, "classes_", None) is not None:
        ask = classifier_scorer(model, run)
    else:
        known, ask = False, _plain(model.predict, run, takes)
    if categories := categories_of(model, takes, run):
        ask = partial(_ask_with_categories, ask, categories)
        # A value of another type would be no category, and missing.
        takes = tuple(typed_by(categories.get(column.name), column) for column in takes)
    return LoadedModel(run, folder, takes, strict=False, is_classifier=known, by_position=not names, ask=ask)


def _ask_with_categories(
    ask: Callable[[pd.DataFrame], Scores], categories: dict[str, pd.CategoricalDtype], frame: pd.DataFrame
) -> Scores:
    return ask(frame.astype({name: dtype for name, dtype in categories.items() if name in frame}))


def _own_names(model: Any) -> list[str]:
    """Return the columns that the model names itself; none where it was trained on an array."""
    found = getattr(model, "feature_names_in_", None)
    if found is None and is_booster(model):
        found = model.feature_name() if hasattr(model, "feature_name") else model.feature_names
    elif found is None and is_boosted(model):
        found = getattr(model, "feature_names_", None)
    names = [str(name) for name in (() if found is None else found)]
    # Boosted models number the columns of an array.
    numbered = is_boosted(model) and all(re.fullmatch(r"(Column_|f)?\d+", name) for name in names)
    return [] if numbered else names


def _takes(names: list[str], run: ModelRun, description: Description) -> tuple[Column, ...]:
    """Return the columns that the model itself names, else those of its signature."""
    declared = {column.name: column for column in description.inputs or ()}
    if not names:
        names = list(declared) or _no_names(run)
    elif len(names) == len(declared) and [name.replace(" ", "_") for name in declared] == names:
        # LightGBM puts an underscore in the place of a blank.
        names = list(declared)
    takes = tuple(declared.get(name) or column_of_payment(name) for name in names)
    if untyped := [column.name for column in takes if column.kind == "any" and not column.declared]:
        log.warning(
            "model run %s has no signature, and its columns %s are none of the usual ones: their type is that of each "
            "payment's own value, so 2 and 2.0 can get different scores. Log the model with a signature",
            run.run_id,
            ", ".join(untyped[:20]),
        )
    return takes


def _pyfunc(run: ModelRun, folder: Path, description: Description) -> LoadedModel:
    def load_model() -> Any:
        # MLflow warns of its own type hints while it is imported.
        from mlflow.pyfunc import load_model

        return load_model(str(folder), suppress_warnings=True)

    model = _loaded(run, description, load_model)
    takes = description.inputs or _no_names(run)
    optional = [column for column in takes if not column.required]
    nullable = [column.name for column in optional if column.is_whole or column.kind == "boolean"]
    ask = _plain(partial(_predict_pyfunc, model, nullable), run, takes)
    return LoadedModel(run, folder, takes, strict=True, is_classifier=False, by_position=False, ask=ask)


def _predict_pyfunc(model: Any, nullable: Collection[str], frame: pd.DataFrame) -> Any:
    """Ask a pyfunc model. MLflow enforces its signature, but for nulls in the `nullable` columns: MLflow refuses NaN
    among whole numbers and booleans even where the signature lets the whole column be missing."""
    if not any(name in frame and frame[name].isna().any() for name in nullable):
        return model.predict(frame)
    signature = model.metadata.signature
    model.metadata.signature = None
    try:
        return model.predict(frame)
    finally:
        model.metadata.signature = signature


def _no_names(run: ModelRun) -> Any:
    raise ModelInputError(
        f"model of run {run.run_id} does not say which columns it takes: train it on a DataFrame, or log it with a "
        "signature that names them"
    )


def _loaded(run: ModelRun, description: Description, loader: Callable[[], Any]) -> Any:
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = loader()
    except UntrustedModelError:
        raise
    except ModuleNotFoundError as error:
        package = str(error.name).split(".")[0]
        if package == error.name or find_spec(package) is None:
            raise ModelRequirementsError(
                f"model of run {run.run_id} needs the module {error.name!r}, which is not installed here"
            ) from error
        raise ModelRequirementsError(
            f"model of run {run.run_id} cannot be loaded here (the {package} here has no module {error.name!r}); "
            f"{description.versions}. {_OTHER_VERSION}"
        ) from error
    except Exception as error:
        # Unpickling runs the model's own code, so anything can be raised.
        raise ModelError(
            f"model of run {run.run_id} cannot be loaded here ({type(error).__name__}: {str(error)[:300]}); "
            f"{description.versions}" + (f". {_OTHER_VERSION}" if description.is_of_other_sklearn else "")
        ) from error
    for text in sorted({str(warning.message).split("\n")[0][:200] for warning in caught})[:3]:
        log.info("model run %s: %s", run.run_id, text)
    return model


def _plain(
    predict: Callable[[pd.DataFrame], Any], run: ModelRun, takes: Iterable[Column]
) -> Callable[[pd.DataFrame], Scores]:
    reader = OutputReader(run.threshold, {column.name for column in takes})

    def ask(frame: pd.DataFrame) -> Scores:
        is_fraud = frame.get("is_fraud")
        return reader.read(predict(frame), len(frame), is_fraud)

    return ask
