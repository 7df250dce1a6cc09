"""Any classifier or pyfunc model that MLflow can load, behind one way to ask it."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.errors import ModelError, ModelInputError, ModelRequirementsError, UntrustedModelError
from include.models import trust
from include.models.classifier import booster_scorer, classifier_scorer
from include.models.column import Column, column_of_payment
from include.models.description import Description
from include.models.estimator import is_booster, require_classifier
from include.models.model_run import ModelRun
from include.models.outputs import OutputReader
from include.models.ready import built
from include.models.scores import Scores

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

_OTHER_VERSION = "Train it with the version here, install the other, or choose another model"
# Flavors whose pyfunc model gives labels only, though the model itself knows probabilities.
_NATIVE = ("xgboost", "lightgbm", "catboost")


class LoadedModel:
    """A model that can be asked.

    `strict`: MLflow enforces the signature, so a value of another type is refused. `outputs_checked` and
    `independence_checked`: whether include/models/vetting.py has accepted the model's output.
    """

    def __init__(
        self,
        run: ModelRun,
        folder: Path,
        takes: tuple[Column, ...],
        *,
        strict: bool,
        outputs_checked: bool,
        ask: Callable[[pd.DataFrame], Scores],
    ) -> None:
        self.run = run
        self.folder = folder
        self.takes = takes
        self.strict = strict
        self.outputs_checked = outputs_checked
        self.independence_checked = False
        self._ask = ask

    def predict(self, frame: pd.DataFrame) -> Scores:
        """Raises whatever the model raises, and ModelError where what it returns is no prediction."""
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

    return built(folder, description, lambda: load_model(str(folder)))  # type: ignore[no-untyped-call]


def _native(folder: Path, flavor: str) -> Any:
    return importlib.import_module(f"mlflow.{flavor}").load_model(str(folder))


def _sklearn(run: ModelRun, description: Description, folder: Path, loader: Callable[[], Any]) -> LoadedModel:
    model = _loaded(run, description, loader)
    require_classifier(model, run)
    known = True
    if is_booster(model):
        ask = booster_scorer(model, run)
    elif getattr(model, "classes_", None) is not None:
        ask = classifier_scorer(model, run)
    else:
        known, ask = False, _plain(model.predict, run)
    takes = _takes(model, run, description)
    return LoadedModel(run, folder, takes, strict=False, outputs_checked=known, ask=ask)


def _takes(model: Any, run: ModelRun, description: Description) -> tuple[Column, ...]:
    """Return the columns that the model itself names, else those of its signature."""
    declared = {column.name: column for column in description.inputs or ()}
    names: list[str] = []
    for attribute in ("feature_names_in_", "feature_names_", "feature_names", "feature_name"):
        found = getattr(model, attribute, None)
        found = found() if callable(found) else found
        if found is not None and len(found):
            names = [str(name) for name in found]
            break
    if not names or (len(names) == len(declared) and not declared.keys() >= set(names)):
        # Boosted models change names that hold a blank, or know their columns by number only.
        names = list(declared) or _no_names(run)
    return tuple(declared.get(name) or column_of_payment(name) for name in names)


def _pyfunc(run: ModelRun, folder: Path, description: Description) -> LoadedModel:
    def load_model() -> Any:
        # MLflow warns of its own type hints while it is imported.
        from mlflow.pyfunc import load_model

        return load_model(str(folder), suppress_warnings=True)

    model = _loaded(run, description, load_model)
    takes = description.inputs or _no_names(run)
    ask = _plain(partial(_predict_pyfunc, model, takes), run)
    return LoadedModel(run, folder, takes, strict=True, outputs_checked=False, ask=ask)


def _predict_pyfunc(model: Any, takes: tuple[Column, ...], frame: pd.DataFrame) -> Any:
    """Ask a pyfunc model. MLflow enforces its signature, but for nulls in an optional column: MLflow refuses NaN among
    whole numbers and booleans even where the signature lets the whole column be missing."""
    nullable = [
        column.name
        for column in takes
        if not column.required and (column.is_whole or column.kind == "boolean") and column.name in frame
    ]
    if not any(frame[name].isna().any() for name in nullable):
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


def _plain(predict: Callable[[pd.DataFrame], Any], run: ModelRun) -> Callable[[pd.DataFrame], Scores]:
    reader = OutputReader(run.threshold)

    def ask(frame: pd.DataFrame) -> Scores:
        return reader.read(predict(frame), len(frame))

    return ask
