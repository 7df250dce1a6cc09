"""Find the model that a user requests by run id, logged-model id or registered version."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from typing import TYPE_CHECKING, Any

from include.errors import ModelNotFoundError
from include.models.candidates import Candidate, names_of
from include.models.mlflow_client import MODEL_NAME, ModelStore

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

# Names in an error, and experiments that are looked at for them.
MAX_NAMES = 20


def find_run_model(store: ModelStore, run_id: str, name: str = MODEL_NAME) -> Candidate:
    run = store.run(run_id)
    if run is None:
        raise ModelNotFoundError(f"MLflow at {store.shown_uri} has no run {run_id}")
    _check_not_deleted(store, run)
    if run.info.status != "FINISHED":
        raise ModelNotFoundError(
            f"run {run_id} is {run.info.status}: only a FINISHED run's model scores payments; choose another"
        )
    model_uri = store.model_of(run, name)
    if model_uri is not None:
        return Candidate(run, model_uri)
    nothing = f"run {run_id} has no model: nothing is logged under the name `{name}`"
    if names := names_of(store, run):
        raise ModelNotFoundError(f"{nothing}, but under {join_names(names)}: ask for runs:/{run_id}/{names[0]}")
    if absence := store.logged_models.absence:
        raise ModelNotFoundError(f"{nothing} among its artifacts. {absence}")
    raise ModelNotFoundError(nothing)


def find_logged_model(store: ModelStore, asked: str) -> Candidate:
    """A logged model that somebody names counts whatever its run's end was, as a registered version does."""
    model = store.logged_models.get(asked.removeprefix("models:/"))
    if str(model.status) != "READY":
        raise ModelNotFoundError(f"logged model {model.model_id} is {model.status}, not READY")
    return Candidate(_run_of(store, model.source_run_id, f"logged model {model.model_id}"), asked)


def _run_of(store: ModelStore, run_id: str | None, what: str) -> Run:
    run = store.run(run_id) if run_id else None
    if run is None:
        raise ModelNotFoundError(f"{what} comes from no MLflow run that still exists")
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


def find_registered_version(store: ModelStore, asked: str) -> Candidate:
    """A version that somebody registered counts whatever its run's end was."""
    name, _, alias = asked.removeprefix("models:/").partition("@")
    version = _version_by_alias(store, name, alias) if alias else _version_by_number(store, *name.split("/"))
    if version.status != "READY":
        raise ModelNotFoundError(f"{version.name} version {version.version} is {version.status}, not READY")
    source = str(version.source or "")
    logged = source.startswith("models:/m-")
    run_id = version.run_id
    if logged and not run_id:
        run_id = store.logged_models.get(source.removeprefix("models:/")).source_run_id
    run = _run_of(store, run_id, f"{version.name} version {version.version}")
    return Candidate(run, source if logged else f"models:/{version.name}/{version.version}", version)


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
    model = store.registered(name)
    if model is None:
        raise ModelNotFoundError(f"MLflow at {store.shown_uri} has no registered model {name!r}")
    return model


def join_names(names: Collection[str]) -> str:
    """Return the first of them, for an error."""
    shown = [repr(name) for name in islice(names, MAX_NAMES)]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
