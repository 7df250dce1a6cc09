"""Find the model that a user requests by run id, logged-model id or registered version."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from typing import TYPE_CHECKING, Any

from include.errors import ModelNotFoundError
from include.models.candidates import Candidate, model_names
from include.models.mlflow_client import MODEL_NAME, ModelStore

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

# Names that an error shows, and experiments that are searched for them.
MAX_NAMES = 20


def find_run_model(store: ModelStore, run_id: str, name: str = MODEL_NAME) -> Candidate:
    """Return the model of that name in a run.

    Raise ModelNotFoundError if the run does not exist, is deleted or not FINISHED, or has no such model: the error
    lists the names of its other models.
    """
    run = store.run(run_id)
    if run is None:
        raise ModelNotFoundError(f"MLflow at {store.shown_uri} has no run {run_id}")
    _check_not_deleted(store, run)
    if run.info.status != "FINISHED":
        raise ModelNotFoundError(
            f"run {run_id} is {run.info.status}: only a FINISHED run's model scores payments. Choose another run"
        )
    model_uri = store.find_model(run, name)
    if model_uri is not None:
        return Candidate(run, model_uri)
    failure = f"run {run_id} has no model named `{name}`"
    if names := model_names(store, run):
        raise ModelNotFoundError(f"{failure}; it has {join_names(names)}: request runs:/{run_id}/{names[0]}")
    if reason := store.logged_models.unavailable_reason:
        raise ModelNotFoundError(f"{failure} among its artifacts. {reason}")
    raise ModelNotFoundError(failure)


def find_logged_model(store: ModelStore, requested: str) -> Candidate:
    """Return the logged model that models:/m-<id> names, whatever the status of its run.

    Raise ModelNotFoundError if it does not exist, is not READY, or its run is deleted.
    """
    model = store.logged_models.get(requested.removeprefix("models:/"))
    if str(model.status) != "READY":
        raise ModelNotFoundError(f"logged model {model.model_id} is {model.status}, not READY. Choose another model")
    return Candidate(_find_run(store, model.source_run_id, f"logged model {model.model_id}"), requested)


def find_registered_version(store: ModelStore, requested: str) -> Candidate:
    """Return the version that models:/name/version or models:/name@alias names, whatever the status of its run.

    Raise ModelNotFoundError if it does not exist, is not READY, or its run is deleted.
    """
    name, _, alias = requested.removeprefix("models:/").partition("@")
    version = _version_by_alias(store, name, alias) if alias else _version_by_number(store, *name.split("/"))
    shown = f"{version.name} version {version.version}"
    if version.status != "READY":
        raise ModelNotFoundError(f"{shown} is {version.status}, not READY. Choose another version")
    source = str(version.source or "")
    is_logged_model = source.startswith("models:/m-")
    run_id = version.run_id
    if is_logged_model and not run_id:
        run_id = store.logged_models.get(source.removeprefix("models:/")).source_run_id
    model_uri = source if is_logged_model else f"models:/{version.name}/{version.version}"
    return Candidate(_find_run(store, run_id, shown), model_uri, version)


def _find_run(store: ModelStore, run_id: str | None, model: str) -> Run:
    """Return the run that logged the model, which an error calls `model`."""
    run = store.run(run_id) if run_id else None
    if run is None:
        raise ModelNotFoundError(f"the MLflow run that logged {model} does not exist any more. Choose another model")
    _check_not_deleted(store, run)
    return run


def _check_not_deleted(store: ModelStore, run: Run) -> None:
    if run.info.lifecycle_stage != "active":
        raise ModelNotFoundError(f"run {run.info.run_id} is deleted: restore it in MLflow or choose another")
    experiment = store.experiment_of(run)
    if experiment.lifecycle_stage != "active":
        raise ModelNotFoundError(
            f"run {run.info.run_id} is in the deleted experiment {experiment.name!r}: restore it or choose another"
        )


def _version_by_alias(store: ModelStore, name: str, alias: str) -> ModelVersion:
    version = store.version_by_alias(name, alias)
    if version is None:
        aliases = sorted(_registered_model(store, name).aliases)
        raise ModelNotFoundError(
            f"registered model {name!r} has no alias {alias!r}; it has: {', '.join(aliases) or 'none'}"
        )
    return version


def _version_by_number(store: ModelStore, name: str, number: str) -> ModelVersion:
    version = store.version(name, number)
    if version is None:
        newest = max((int(each.version) for each in _registered_model(store, name).latest_versions), default=0)
        raise ModelNotFoundError(
            f"registered model {name!r} has no version {number}; "
            + (f"its newest is {newest}" if newest else "it has none")
        )
    return version


def _registered_model(store: ModelStore, name: str) -> Any:
    model = store.registered_model(name)
    if model is None:
        raise ModelNotFoundError(f"MLflow at {store.shown_uri} has no registered model {name!r}")
    return model


def join_names(names: Collection[str]) -> str:
    """Return the first 20 names and the number of the others, for an error."""
    shown = [repr(name) for name in islice(names, MAX_NAMES)]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
