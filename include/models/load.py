"""Load any classifier or pyfunc model that MLflow can load, as an object that scores frames in one way."""

from __future__ import annotations

import importlib
import logging
import re
import warnings
from collections.abc import Callable, Collection
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from include.errors import ModelError, ModelInputError, ModelRequirementsError, UntrustedModelError
from include.models import trust
from include.models.categories import categorical_dtypes, with_category_kind
from include.models.classifier import booster_scorer, classifier_scorer
from include.models.column import Column, payment_column
from include.models.description import Description
from include.models.estimator import is_boosted, is_booster, require_classifier
from include.models.model_run import ModelRun
from include.models.output_reader import OutputReader
from include.models.outputs import Scores
from include.models.pickle_cache import load_or_build_if_skops

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

_OTHER_VERSION = "Train it with the version that is installed here, install the other one, or choose another model"
# Flavors whose pyfunc model returns labels only, while the model itself has probabilities.
_NATIVE_FLAVORS = ("xgboost", "lightgbm", "catboost")

_Scorer = Callable[["pd.DataFrame"], Scores]


class LoadedModel:
    """A model that scores frames of its `input_columns`.

    `strict` is true if MLflow enforces the signature, so that a value of another type is refused. `is_classifier` is
    true if the model itself names the classes 0 and 1. `by_position` is true if it knows its columns by their order
    only. `outputs_checked` tells whether include/models/vetting.py has accepted the model's output, and `rows_compared`
    how many payments it has scored again, to check that a score depends on its own row only.
    """

    def __init__(
        self,
        run: ModelRun,
        folder: Path,
        input_columns: tuple[Column, ...],
        *,
        strict: bool,
        is_classifier: bool,
        by_position: bool,
        scorer: _Scorer,
    ) -> None:
        self.run = run
        self.folder = folder
        self.input_columns = input_columns
        self.strict = strict
        self.is_classifier = is_classifier
        self._by_position = by_position
        self.outputs_checked = False
        self.rows_compared = 0
        self._scorer = scorer

    def predict(self, frame: pd.DataFrame) -> Scores:
        """Return a score for each row of `frame`, which has some or all of the input columns.

        Raise whatever the model raises, and ModelError if its output is not a prediction.
        """
        if frame.shape[1] < len(self.input_columns) and (self._by_position or not frame.shape[1]):
            # The model would take the columns behind a missing one for it.
            raise KeyError([column.name for column in self.input_columns if column.name not in frame])
        # A model may change its frame: the caller's stays unchanged.
        frame = frame.copy(deep=False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self._scorer(frame)

    def input_example(self) -> pd.DataFrame | None:
        """Return the input columns of the example that is stored with the model, None if there is none."""
        import pandas as pd
        from mlflow.models import Model

        example = Model.load(str(self.folder)).load_input_example(str(self.folder))
        if not isinstance(example, pd.DataFrame):
            return None
        return example[[column.name for column in self.input_columns if column.name in example]]


def load(run: ModelRun, folder: Path, *, allow_pickles: bool = True) -> LoadedModel:
    """Load the model whose files are in `folder`, as `ModelCache.fetch` returns it.

    Raise ModelError if it cannot be loaded or is not supported, and UntrustedModelError if pickles are not allowed and
    the model could hold one.
    """
    description = Description.from_folder(folder)
    if not allow_pickles:
        return _load_estimator(run, description, folder, lambda: trust.load(run.run_id, folder, description))
    if "sklearn" in description.flavors:
        return _load_estimator(run, description, folder, lambda: _read_sklearn(folder, description))
    native = next((flavor for flavor in _NATIVE_FLAVORS if flavor in description.flavors), None)
    if native is not None:
        return _load_estimator(run, description, folder, lambda: _read_native(folder, native))
    if "python_function" in description.flavors:
        return _load_pyfunc(run, folder, description)
    raise ModelError(
        f"model of run {run.run_id} has no flavor sklearn or python_function, only {', '.join(description.flavors)}. "
        "Log it with one of these flavors, or choose another model"
    )


def _read_sklearn(folder: Path, description: Description) -> Any:
    from mlflow.sklearn import load_model

    return load_or_build_if_skops(folder, description, lambda: load_model(str(folder)))  # type: ignore[no-untyped-call]


def _read_native(folder: Path, flavor: str) -> Any:
    return importlib.import_module(f"mlflow.{flavor}").load_model(str(folder))


def _load_estimator(run: ModelRun, description: Description, folder: Path, read: Callable[[], Any]) -> LoadedModel:
    model = _read_or_explain(run, description, read)
    require_classifier(model, run)
    names = _model_column_names(model)
    columns = _input_columns(names, run, description)
    is_classifier = True
    if is_booster(model):
        scorer = booster_scorer(model, run)
    elif getattr(model, "classes_", None) is not None:
        scorer = classifier_scorer(model, run)
    else:
        is_classifier, scorer = False, _output_scorer(model.predict, run, columns)
    if dtypes := categorical_dtypes(model, columns, run):
        scorer = partial(_score_with_categories, scorer, dtypes)
        # A value of another type would not be found among the categories, and so be missing.
        columns = tuple(with_category_kind(dtypes.get(column.name), column) for column in columns)
    return LoadedModel(
        run, folder, columns, strict=False, is_classifier=is_classifier, by_position=not names, scorer=scorer
    )


def _score_with_categories(scorer: _Scorer, dtypes: dict[str, pd.CategoricalDtype], frame: pd.DataFrame) -> Scores:
    return scorer(frame.astype({name: dtype for name, dtype in dtypes.items() if name in frame}))


def _model_column_names(model: Any) -> list[str]:
    """Return the columns that the model itself names; empty if it was trained on an array."""
    stored = getattr(model, "feature_names_in_", None)
    if stored is None and is_booster(model):
        stored = model.feature_name() if hasattr(model, "feature_name") else model.feature_names
    elif stored is None and is_boosted(model):
        stored = getattr(model, "feature_names_", None)
    names = [str(name) for name in (() if stored is None else stored)]
    # Boosted models number the columns of an array.
    are_numbers = is_boosted(model) and all(re.fullmatch(r"(Column_|f)?\d+", name) for name in names)
    return [] if are_numbers else names


def _input_columns(names: list[str], run: ModelRun, description: Description) -> tuple[Column, ...]:
    """Return the columns that the model itself names, else those of its signature."""
    declared = {column.name: column for column in description.inputs or ()}
    if not names:
        names = list(declared) or _raise_no_columns(run)
    elif len(names) == len(declared) and [name.replace(" ", "_") for name in declared] == names:
        # LightGBM replaces a blank with an underscore.
        names = list(declared)
    columns = tuple(declared.get(name) or payment_column(name) for name in names)
    if untyped := [column.name for column in columns if column.kind == "any" and not column.declared]:
        log.warning(
            "model of run %s has no signature, and its columns %s are not standard columns of a payment: their type is "
            "that of each payment's own value, so 2 and 2.0 can get different scores. Log the model with a signature",
            run.run_id,
            ", ".join(untyped[:20]),
        )
    return columns


def _load_pyfunc(run: ModelRun, folder: Path, description: Description) -> LoadedModel:
    def read() -> Any:
        # Imported here, because the import raises warnings about MLflow's own type hints.
        from mlflow.pyfunc import load_model

        return load_model(str(folder), suppress_warnings=True)

    model = _read_or_explain(run, description, read)
    columns = description.inputs or _raise_no_columns(run)
    optional = [column for column in columns if not column.required]
    nullable = [column.name for column in optional if column.is_whole or column.kind == "boolean"]
    scorer = _output_scorer(partial(_predict_pyfunc, model, nullable), run, columns)
    return LoadedModel(run, folder, columns, strict=True, is_classifier=False, by_position=False, scorer=scorer)


def _predict_pyfunc(model: Any, nullable: Collection[str], frame: pd.DataFrame) -> Any:
    """Return the output of a pyfunc model, whose signature MLflow enforces unless a `nullable` column has nulls.

    MLflow rejects NaN among whole numbers and booleans, even if the signature allows the whole column to be missing.
    """
    if not any(name in frame and frame[name].isna().any() for name in nullable):
        return model.predict(frame)
    signature = model.metadata.signature
    model.metadata.signature = None
    try:
        return model.predict(frame)
    finally:
        model.metadata.signature = signature


def _raise_no_columns(run: ModelRun) -> NoReturn:
    raise ModelInputError(
        f"model of run {run.run_id} does not say which columns it takes: train it on a DataFrame, or log it with a "
        "signature that names them"
    )


def _read_or_explain(run: ModelRun, description: Description, read: Callable[[], Any]) -> Any:
    """Return the model that `read` returns, and log its warnings; raise ModelError with the cause if it fails."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = read()
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
        # Unpickling runs the model's own code, which can raise anything.
        raise ModelError(
            f"model of run {run.run_id} cannot be loaded here ({type(error).__name__}: {str(error)[:300]}); "
            f"{description.versions}" + (f". {_OTHER_VERSION}" if description.is_of_other_sklearn else "")
        ) from error
    for text in sorted({str(warning.message).split("\n")[0][:200] for warning in caught})[:3]:
        log.info("model of run %s: %s", run.run_id, text)
    return model


def _output_scorer(predict: Callable[[pd.DataFrame], Any], run: ModelRun, columns: Collection[Column]) -> _Scorer:
    reader = OutputReader(run.threshold, {column.name for column in columns})

    def score(frame: pd.DataFrame) -> Scores:
        is_fraud = frame.get("is_fraud")
        return reader.read(predict(frame), len(frame), is_fraud)

    return score
