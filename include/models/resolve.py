"""Which model run scores a batch: decided once a DAG run, so that every later step and every retry uses the same.

- latest: the newest FINISHED run that has a model and is no child of another, in the newest experiment that has such a
  run.
- previous: the one before it, or where that experiment has only one, the newest such run of the experiment before.
- Experiments are as new as their creation, runs as new as their start. What is deleted never counts.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from include.errors import (
    FraudError,
    ModelError,
    ModelNotFoundError,
    RunConfigurationError,
    SettingError,
)
from include.models import requirements, trust
from include.models.candidates import MOST_LISTED, Candidate, Candidates, other_names
from include.models.description import Description, parse_threshold
from include.models.mlflow_client import MODEL_NAME, ModelStore
from include.models.model_cache import ModelCache
from include.models.model_run import ModelRun
from include.models.requested_model import (
    MAX_NAMES,
    find_logged_model,
    find_registered_version,
    find_run_model,
    join_names,
)
from include.models.selection import ALLOWED, HOLD_REMEDY, HOLD_VARIABLE, is_allowed, names_logged_model

if TYPE_CHECKING:
    from mlflow.entities import Experiment, Run
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger(__name__)

DEFAULT, HOLD, RUN_CONFIGURATION = "default", "hold", "run configuration"
THRESHOLD_TAG = "fraud_threshold"


def resolve(
    asked: str,
    *,
    experiment: str | None,
    chosen_by: str,
    reason: str | None = None,
    without_pickles: ModelCache | None = None,
    unchecked: Collection[str] = (),
) -> ModelRun:
    """Return the model run. `experiment` narrows latest and previous. Where pickles are refused, `without_pickles` is
    the cache into which the model is fetched, to look into it. `unchecked` are the runs whose model is taken although
    packages that it requires are missing."""
    if not is_allowed(asked):
        raise _not_allowed_error(asked, chosen_by)
    try:
        allow_pickles = without_pickles is None
        run = _resolve(asked, experiment, chosen_by, reason, unchecked, allow_pickles=allow_pickles)
        if without_pickles is not None:
            from include.models.load import load

            load(run, without_pickles.fetch(run), allow_pickles=False)
        return run
    except ModelError as error:
        if chosen_by != HOLD:
            raise
        raise type(error)(f"{error}. {HOLD_REMEDY}") from error


def _resolve(
    asked: str,
    experiment: str | None,
    chosen_by: str,
    reason: str | None,
    unchecked: Collection[str],
    *,
    allow_pickles: bool,
) -> ModelRun:
    store = ModelStore()
    if asked in ("latest", "previous"):
        found = _find_newest(store, asked, experiment)
    elif names_logged_model(asked):
        found = find_logged_model(store, asked)
    elif asked.startswith("models:/"):
        found = find_registered_version(store, asked)
    else:
        found = find_run_model(store, *asked.removeprefix("runs:/").split("/", 1))
    description = _read_description(store, found)
    if not allow_pickles:
        # Before anything large is fetched, and before its requirements are asked for: those of a pickle do not matter.
        trust.check(found.run.info.run_id, description)
    run_id = found.run.info.run_id
    for note in requirements.check(_read_requirements(store, found), run_id=run_id, required=run_id not in unchecked):
        log.info("model run %s: %s", run_id, note)
    version = found.version or _find_version(store, found)
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


def _not_allowed_error(asked: str, chosen_by: str) -> FraudError:
    if chosen_by == RUN_CONFIGURATION:
        return RunConfigurationError(f"model={asked!r} is not allowed; allowed: {ALLOWED}")
    where = f"the Airflow Variable {HOLD_VARIABLE}" if chosen_by == HOLD else "FRAUD_MODEL"
    return SettingError(f"{where}: {asked!r} is no model; allowed: {ALLOWED}")


def _find_newest(store: ModelStore, asked: str, experiment: str | None) -> Candidate:
    looked_at: list[Experiment] = []
    candidates = Candidates(store)
    skip = 0 if asked == "latest" else 1
    found = next(islice(_iterate_candidates(candidates, experiment, looked_at), skip, None), None)
    if candidates.skipped:
        log.info(
            "artifacts of %d runs without a logged model were not searched (limit: the newest %d); if one of them has "
            "a model among its artifacts, request it by its run id",
            candidates.skipped,
            MOST_LISTED,
        )
    if found is not None:
        return found
    if not looked_at:
        raise ModelNotFoundError(f"MLflow at {store.shown_uri} has no experiment: train a model first")
    where = f"experiment {experiment!r}" if experiment else f"any of the {len(looked_at)} experiments"
    if skip and next(_iterate_candidates(candidates, experiment, []), None) is not None:
        raise ModelNotFoundError(
            f"there is no previous model: only one finished run with a model in {where} of MLflow at {store.shown_uri}"
        )
    raise ModelNotFoundError(
        f"no finished run with a model in {where} of MLflow at {store.shown_uri}: train one first"
        f"{_describe_other_models(store, looked_at)}"
    )


def _describe_other_models(store: ModelStore, looked_at: list[Experiment]) -> str:
    """Return what is there that does not count, for an error; nothing where there is nothing."""
    names = {name: run_id for each in looked_at[:MAX_NAMES] for name, run_id in other_names(store, each).items()}
    notes = []
    if names:
        name, run_id = next(iter(names.items()))
        notes.append(
            f"there are models of other names than {MODEL_NAME!r}: {join_names(names)}; log with "
            f"name={MODEL_NAME!r}, or ask for one, such as runs:/{run_id}/{name}"
        )
    if absence := store.logged_models.absence:
        notes.append(f"{absence}, so only models among the artifacts of runs were seen")
    return "".join(f". {note[0].upper()}{note[1:]}" for note in notes)


def newest_run(experiment: str) -> str | None:
    """The run that is latest there, for whoever only asks whether there is one."""
    try:
        found = next(_iterate_candidates(Candidates(ModelStore()), experiment, []), None)
    except ModelNotFoundError:
        return None
    return found.run.info.run_id if found else None


def _iterate_candidates(
    candidates: Candidates, experiment: str | None, looked_at: list[Experiment]
) -> Iterator[Candidate]:
    """Newest first: the first is the latest, the second the previous."""
    store = candidates.store
    for each in [_find_experiment(store, experiment)] if experiment else store.experiments():
        looked_at.append(each)
        yield from candidates.of(each)


def _find_experiment(store: ModelStore, name: str) -> Experiment:
    found = store.experiment(name)
    if found is None or found.lifecycle_stage != "active":
        known = [each.name for each in islice(store.experiments(), 20)]
        state = "is deleted" if found is not None else "does not exist"
        raise ModelNotFoundError(
            f"FRAUD_EXPERIMENT: experiment {name!r} {state} in MLflow at {store.shown_uri}; it has: "
            f"{', '.join(map(repr, known)) or 'none'}"
        )
    return found


def _find_version(store: ModelStore, found: Candidate) -> ModelVersion | None:
    """The newest registered version of this very model, if any."""
    run_id = found.run.info.run_id
    same = {found.model_uri, f"runs:/{run_id}/model"}
    versions = [version for version in store.versions_of(run_id) if version.source in same]
    return max(versions, key=lambda version: int(version.version), default=None)


def _read_description(store: ModelStore, found: Candidate) -> Description:
    text = store.text(found.model_uri, "MLmodel")
    if text is None:
        raise ModelNotFoundError(
            f"run {found.run.info.run_id} has a model, but its MLmodel file is gone from {found.model_uri}"
        )
    return Description.parse(text)


def _read_requirements(store: ModelStore, found: Candidate) -> list[str]:
    text = store.text(found.model_uri, "requirements.txt")
    if text is not None:
        return text.splitlines()
    return requirements.pip_lines_of_conda(store.text(found.model_uri, "conda.yaml") or "")


def _threshold(description: Description, run: Run) -> float | None:
    """What travels with the model itself comes before what is written on its run.

    A run's parameters never count: what they call a threshold may be that of any step (VarianceThreshold).
    """
    if description.threshold is not None:
        return description.threshold
    return parse_threshold(run.data.tags.get(THRESHOLD_TAG), f"the tag {THRESHOLD_TAG} of run {run.info.run_id}")
