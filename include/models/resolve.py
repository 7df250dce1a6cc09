"""Which model run scores a batch: decided once a DAG run, so that every later step and every retry uses the same.

- latest: the newest FINISHED run that has a model, in the newest experiment that has such a run.
- previous: the one before it, or where that experiment has only one, the newest such run of the experiment before.
- Experiments are as new as their creation, runs as new as their start. What is deleted never counts.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from include.errors import (
    FraudError,
    ModelError,
    ModelNotFoundError,
    RunConfigurationError,
    SettingError,
    UntrustedModelError,
)
from include.models import requirements, trust
from include.models.cache import ModelCache
from include.models.choice import ALLOWED, END_OF_HOLD, HOLD_VARIABLE, is_allowed
from include.models.description import Description, parse_threshold
from include.models.model_run import ModelRun
from include.models.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Experiment, Run
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger(__name__)

DEFAULT, HOLD, RUN_CONFIGURATION = "default", "hold", "run configuration"
THRESHOLD_TAG = "fraud_threshold"


@dataclass(frozen=True)
class _Found:
    run: Run
    model_uri: str
    version: ModelVersion | None = None


def resolve(
    asked: str,
    *,
    experiment: str | None,
    chosen_by: str,
    reason: str | None = None,
    columns: Collection[str] | None = None,
    without_pickles: ModelCache | None = None,
) -> ModelRun:
    """`experiment` narrows latest and previous; `columns` are those seen in this batch, if all are known. Where pickles
    are refused, `without_pickles` is the cache into which the model is fetched, to look into it."""
    if not is_allowed(asked):
        raise _not_allowed(asked, chosen_by)
    try:
        run = _resolve(asked, experiment, chosen_by, reason, columns, allow_pickles=without_pickles is None)
        if without_pickles is not None:
            from include.models.load import load

            load(run, without_pickles.fetch(run), allow_pickles=False)
        return run
    except ModelError as error:
        if chosen_by != HOLD:
            raise
        raise type(error)(f"{error}. It is held ({HOLD_VARIABLE}); to end the hold, {END_OF_HOLD}") from error


def _resolve(
    asked: str,
    experiment: str | None,
    chosen_by: str,
    reason: str | None,
    columns: Collection[str] | None,
    *,
    allow_pickles: bool,
) -> ModelRun:
    store = Store()
    if asked in ("latest", "previous"):
        found = _newest(store, asked, experiment)
    elif asked.startswith("models:/"):
        found = _registered(store, asked)
    else:
        found = _run(store, asked)
    description = _describe(store, found)
    if not allow_pickles:
        # Before anything large is fetched, and before its requirements are asked for: those of a pickle do not matter.
        trust.check(found.run.info.run_id, description)
    description.check_columns(columns)
    for note in requirements.check(_requirements(store, found)):
        log.info("model run %s: %s", found.run.info.run_id, note)
    version = found.version or _version_of(store, found)
    return ModelRun(
        run_id=found.run.info.run_id,
        model_uri=found.model_uri,
        experiment=store.experiment_of(found.run).name,
        name=version.name if version else None,
        version=str(version.version) if version else None,
        asked=asked,
        chosen_by=chosen_by,
        reason=reason,
        url=store.run_page(found.run),
        threshold=_threshold(description, found.run),
    )


def _not_allowed(asked: str, chosen_by: str) -> FraudError:
    if chosen_by == RUN_CONFIGURATION:
        return RunConfigurationError(f"model={asked!r} is not allowed; allowed: {ALLOWED}")
    where = f"the Airflow Variable {HOLD_VARIABLE}" if chosen_by == HOLD else "FRAUD_MODEL"
    return SettingError(f"{where}: {asked!r} is no model; allowed: {ALLOWED}")


def _newest(store: Store, asked: str, experiment: str | None) -> _Found:
    looked_at: list[Experiment] = []
    skip = 0 if asked == "latest" else 1
    found = next(islice(_candidates(store, experiment, looked_at), skip, None), None)
    if found is not None:
        return found
    if not looked_at:
        raise ModelNotFoundError(f"MLflow at {store.shown_uri} has no experiment: train a model first")
    where = f"experiment {experiment!r}" if experiment else f"any of the {len(looked_at)} experiments"
    if skip and next(_candidates(store, experiment, []), None) is not None:
        raise ModelNotFoundError(
            f"there is no previous model: only one finished run with a model in {where} of MLflow at {store.shown_uri}"
        )
    raise ModelNotFoundError(f"no finished run with a model in {where} of MLflow at {store.shown_uri}: train one first")


def newest_run(experiment: str) -> str | None:
    """The run that is latest there, for whoever only asks whether there is one."""
    try:
        found = next(_candidates(Store(), experiment, []), None)
    except ModelNotFoundError:
        return None
    return found.run.info.run_id if found else None


def _candidates(store: Store, experiment: str | None, looked_at: list[Experiment]) -> Iterator[_Found]:
    """Newest first: the first is the latest, the second the previous."""
    for each in [_experiment(store, experiment)] if experiment else store.experiments():
        looked_at.append(each)
        for run in store.finished_runs(each.experiment_id):
            try:
                model_uri = store.model_of(run)
            except UntrustedModelError as error:
                # Whoever shares this MLflow may keep files of their own anywhere.
                log.warning("passed over: %s", error)
                continue
            if model_uri is not None:
                yield _Found(run, model_uri)


def _experiment(store: Store, name: str) -> Experiment:
    found = store.experiment(name)
    if found is None or found.lifecycle_stage != "active":
        known = [each.name for each in islice(store.experiments(), 20)]
        state = "is deleted" if found is not None else "does not exist"
        raise ModelNotFoundError(
            f"FRAUD_EXPERIMENT: experiment {name!r} {state} in MLflow at {store.shown_uri}; it has: "
            f"{', '.join(map(repr, known)) or 'none'}"
        )
    return found


def _run(store: Store, run_id: str) -> _Found:
    run = store.run(run_id)
    if run is None:
        raise ModelNotFoundError(f"MLflow at {store.shown_uri} has no run {run_id}")
    _check_not_deleted(store, run)
    if run.info.status != "FINISHED":
        raise ModelNotFoundError(
            f"run {run_id} is {run.info.status}: only a FINISHED run's model scores payments; choose another"
        )
    model_uri = store.model_of(run)
    if model_uri is None:
        raise ModelNotFoundError(f"run {run_id} has no model: nothing is logged under the name `model`")
    return _Found(run, model_uri)


def _check_not_deleted(store: Store, run: Run) -> None:
    if run.info.lifecycle_stage != "active":
        raise ModelNotFoundError(f"run {run.info.run_id} is deleted: restore it in MLflow or choose another")
    experiment = store.experiment_of(run)
    if experiment.lifecycle_stage != "active":
        raise ModelNotFoundError(
            f"run {run.info.run_id} is in the deleted experiment {experiment.name!r}: restore it or choose another"
        )


def _registered(store: Store, asked: str) -> _Found:
    """A version that somebody registered counts whatever its run's end was."""
    name, _, alias = asked.removeprefix("models:/").partition("@")
    version = _by_alias(store, name, alias) if alias else _by_number(store, *name.split("/"))
    if version.status != "READY":
        raise ModelNotFoundError(f"{version.name} version {version.version} is {version.status}, not READY")
    source = str(version.source or "")
    logged = source.startswith("models:/m-")
    run_id = version.run_id or (store.source_run(source) if logged else None)
    run = store.run(run_id) if run_id else None
    if run is None:
        raise ModelNotFoundError(f"{version.name} version {version.version} comes from no MLflow run that still exists")
    _check_not_deleted(store, run)
    return _Found(run, source if logged else f"models:/{version.name}/{version.version}", version)


def _by_alias(store: Store, name: str, alias: str) -> ModelVersion:
    version = store.version_by_alias(name, alias)
    if version is None:
        aliases = sorted(_model(store, name).aliases)
        raise ModelNotFoundError(
            f"registered model {name!r} has no alias {alias!r}; it has: {', '.join(aliases) or 'none'}"
        )
    return version


def _by_number(store: Store, name: str, number: str) -> ModelVersion:
    version = store.version(name, number)
    if version is None:
        newest = max((int(each.version) for each in _model(store, name).latest_versions), default=0)
        raise ModelNotFoundError(
            f"registered model {name!r} has no version {number}; "
            + (f"its newest is {newest}" if newest else "it has none")
        )
    return version


def _model(store: Store, name: str) -> Any:
    model = store.registered(name)
    if model is None:
        raise ModelNotFoundError(f"MLflow at {store.shown_uri} has no registered model {name!r}")
    return model


def _version_of(store: Store, found: _Found) -> ModelVersion | None:
    """The newest registered version of this very model, if any."""
    run_id = found.run.info.run_id
    same = {found.model_uri, f"runs:/{run_id}/model"}
    versions = [version for version in store.versions_of(run_id) if version.source in same]
    return max(versions, key=lambda version: int(version.version), default=None)


def _describe(store: Store, found: _Found) -> Description:
    text = store.text(found.model_uri, "MLmodel")
    if text is None:
        raise ModelNotFoundError(
            f"run {found.run.info.run_id} has a model, but its MLmodel file is gone from {found.model_uri}"
        )
    return Description.parse(text)


def _requirements(store: Store, found: _Found) -> list[str]:
    text = store.text(found.model_uri, "requirements.txt")
    if text is not None:
        return text.splitlines()
    return requirements.lines_of_conda(store.text(found.model_uri, "conda.yaml") or "")


def _threshold(description: Description, run: Run) -> float | None:
    """What travels with the model itself comes before what is written on its run.

    A run's parameters never count: what they call a threshold may be that of any step (VarianceThreshold).
    """
    if description.threshold is not None:
        return description.threshold
    return parse_threshold(run.data.tags.get(THRESHOLD_TAG), f"the tag {THRESHOLD_TAG} of run {run.info.run_id}")
