"""Any scikit-learn or pyfunc model that MLflow can load, behind one way to ask it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.errors import ModelError, ModelInputError, ModelRequirementsError, UntrustedModelError
from include.models import trust
from include.models.column import Column, kind_of_payment
from include.models.description import Description
from include.models.model_run import ModelRun
from include.models.ready import built
from include.models.scores import Scores, from_classifier, from_output, labels

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

_OTHER_VERSION = "Train it with the version here, install the other, or choose another model"
# Below this many rows, starting the threads of a forest costs more than they save, and so does sorting for it.
_MANY_ROWS = 1_000


class LoadedModel:
    """`exact`: takes values as they came, because no signature is enforced on them."""

    def __init__(
        self,
        run: ModelRun,
        folder: Path,
        takes: tuple[Column, ...],
        *,
        exact: bool,
        ask: Callable[[pd.DataFrame], Scores],
    ) -> None:
        self.run = run
        self.folder = folder
        self.takes = takes
        self.exact = exact
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
    if "python_function" in description.flavors:
        return _pyfunc(run, folder, description)
    raise ModelError(
        f"model of run {run.run_id} has no flavor sklearn or python_function, only {', '.join(description.flavors)}"
    )


def _mlflow_sklearn(folder: Path, description: Description) -> Any:
    from mlflow.sklearn import load_model

    return built(folder, description, lambda: load_model(str(folder)))  # type: ignore[no-untyped-call]


def _sklearn(run: ModelRun, description: Description, folder: Path, loader: Callable[[], Any]) -> LoadedModel:
    model = _loaded(run, description, loader)
    kinds = {column.name: column.kind for column in description.inputs or ()}
    names = getattr(model, "feature_names_in_", None)
    if names is None:
        names = kinds or _no_names(run)
    takes = tuple(Column(str(name), kinds.get(str(name)) or kind_of_payment(str(name))) for name in names)
    ask = _classifier(model, run) if getattr(model, "classes_", None) is not None else _plain(model, run)
    return LoadedModel(run, folder, takes, exact=True, ask=ask)


def _pyfunc(run: ModelRun, folder: Path, description: Description) -> LoadedModel:
    def load_model() -> Any:
        # MLflow warns of its own type hints while it is imported.
        from mlflow.pyfunc import load_model

        return load_model(str(folder), suppress_warnings=True)

    model = _loaded(run, description, load_model)
    takes = description.inputs or _no_names(run)
    return LoadedModel(run, folder, takes, exact=False, ask=_plain(model, run))


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


def _plain(model: Any, run: ModelRun) -> Callable[[pd.DataFrame], Scores]:
    def ask(frame: pd.DataFrame) -> Scores:
        return from_output(model.predict(frame), len(frame), run.threshold)

    return ask


def _classifier(model: Any, run: ModelRun) -> Callable[[pd.DataFrame], Scores]:
    import numpy as np

    try:
        classes = labels(np.asarray(model.classes_))
    except (ModelError, ValueError) as error:
        raise ModelError(
            f"model of run {run.run_id} tells other classes apart than 0 and 1: {str(model.classes_)[:100]}"
        ) from error
    fraud = np.flatnonzero(classes == 1)
    forest = _forest(model)
    if forest is not None:
        forest.predict_proba = partial(_by_neighbours, forest, forest.predict_proba)
    gives_probability = hasattr(model, "predict_proba")
    if run.threshold is not None and not gives_probability:
        raise ModelError(f"model of run {run.run_id} has a threshold ({run.threshold}), but gives no probabilities")

    def ask(frame: pd.DataFrame) -> Scores:
        count = len(frame)
        if forest is not None:
            forest.n_jobs = 1 if count < _MANY_ROWS else -1
        shares = model.predict_proba(frame) if gives_probability else None
        if shares is not None:
            probability = shares[:, fraud[0]].astype(np.float64) if len(fraud) else np.zeros(count)
        else:
            probability = None
        if run.threshold is not None:
            prediction = None
        elif forest is not None and shares is not None:
            # What a forest's predict does with the same probabilities; asking it would grow them once more.
            prediction = classes[np.argmax(shares, axis=1)]
        else:
            prediction = model.predict(frame)
        return from_classifier(prediction, probability, count, run.threshold)

    return ask


def _by_neighbours(forest: Any, predict_proba: Callable[[Any], Any], rows: Any) -> Any:
    """What `predict_proba` says of the rows, asked in an order in which those that are alike follow each other: by
    their leaf in the first tree. They take the same branches in the other trees too, which a processor foresees then:
    half the time (docs/benchmarks.md). No row's answer depends on another row.
    """
    import numpy as np

    if rows.shape[0] < _MANY_ROWS:
        return predict_proba(rows)
    order = np.argsort(forest.estimators_[0].apply(rows), kind="stable")
    asked = predict_proba(rows.iloc[order] if hasattr(rows, "iloc") else rows[order])
    shares = np.empty_like(asked)
    shares[order] = asked
    return shares


def _forest(model: Any) -> Any:
    """The forest that a model is, or that a pipeline ends with."""
    from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
    from sklearn.pipeline import Pipeline

    is_plain_pipeline = isinstance(model, Pipeline) and type(model).__module__.startswith(("sklearn.", "imblearn."))
    last = model.steps[-1][1] if is_plain_pipeline else model
    # A class derived from a forest or a pipeline may predict in its own way.
    return last if type(last) in (RandomForestClassifier, ExtraTreesClassifier) else None
