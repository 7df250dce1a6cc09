"""Find the model run that scores a batch, once per DAG run, so that all later tasks and retries use the same model.

- latest: the newest FINISHED run that has a model and is no child of another run, in the newest experiment that has
  such a run.
- previous: the run before it, or, if that experiment has only one, the newest such run of the experiment before.
- The age of an experiment is its creation time, that of a run its start time. Deleted ones never count.
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
from include.models.candidates import MAX_LISTED_RUNS, Candidate, Candidates, other_model_names
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
    requested: str,
    *,
    experiment: str | None,
    chosen_by: str,
    reason: str | None = None,
    trust_check_cache: ModelCache | None = None,
    unchecked_requirements: Collection[str] = (),
) -> ModelRun:
    """Return the model run that `requested` names (see selection.ALLOWED).

    `experiment` limits latest and previous to one experiment. `chosen_by` is DEFAULT, HOLD or RUN_CONFIGURATION. If
    pickles are refused, `trust_check_cache` is the cache into which the model is downloaded for that check.
    `unchecked_requirements` are the ids of runs whose model may lack required packages.

    Raise ModelError if no model matches or the model cannot be used here; the error of a held model says how to end the
    hold. Raise RunConfigurationError or SettingError if `requested` is not allowed, and ModelStoreError if MLflow does
    not answer.
    """
    if not is_allowed(requested):
        raise _not_allowed_error(requested, chosen_by)
    try:
        store = ModelStore()
        candidate = _find_candidate(store, requested, experiment)
        run_id = candidate.run.info.run_id
        description = _read_description(store, candidate)
        if trust_check_cache is not None:
            # Checked before a large file is downloaded, and before the requirements: a pickle's do not matter.
            trust.check(run_id, description)
        is_required = run_id not in unchecked_requirements
        for note in requirements.check(_read_requirements(store, candidate), run_id=run_id, required=is_required):
            log.info("model run %s: %s", run_id, note)
        version = candidate.version or _find_version(store, candidate)
        run = ModelRun(
            run_id=run_id,
            model_uri=candidate.model_uri,
            experiment=store.experiment_of(candidate.run).name,
            name=version.name if version else None,
            version=str(version.version) if version else None,
            asked=requested,
            chosen_by=chosen_by,
            reason=reason,
            url=store.run_url(candidate.run),
            threshold=_threshold(description, candidate.run),
        )
        if trust_check_cache is not None:
            from include.models.load import load

            load(run, trust_check_cache.fetch(run), allow_pickles=False)
        return run
    except ModelError as error:
        if chosen_by != HOLD:
            raise
        raise type(error)(f"{error}. {HOLD_REMEDY}") from error


def _find_candidate(store: ModelStore, requested: str, experiment: str | None) -> Candidate:
    if requested in ("latest", "previous"):
        return _find_newest(store, requested, experiment)
    if names_logged_model(requested):
        return find_logged_model(store, requested)
    if requested.startswith("models:/"):
        return find_registered_version(store, requested)
    return find_run_model(store, *requested.removeprefix("runs:/").split("/", 1))


def _not_allowed_error(requested: str, chosen_by: str) -> FraudError:
    if chosen_by == RUN_CONFIGURATION:
        return RunConfigurationError(f"model={requested!r} is not allowed; allowed: {ALLOWED}")
    where = f"the Airflow Variable {HOLD_VARIABLE}" if chosen_by == HOLD else "FRAUD_MODEL"
    return SettingError(f"{where}: {requested!r} is not a model; allowed: {ALLOWED}")


def _find_newest(store: ModelStore, requested: str, experiment: str | None) -> Candidate:
    """Return the latest or the previous model. Raise ModelNotFoundError if there is none."""
    searched: list[Experiment] = []
    candidates = Candidates(store)
    skip = 0 if requested == "latest" else 1
    candidate = next(islice(_iterate_candidates(candidates, experiment, searched), skip, None), None)
    if candidates.skipped:
        log.info(
            "artifacts of %d runs without a logged model were not searched (limit: the newest %d); if one of them has "
            "a model among its artifacts, request it by its run id",
            candidates.skipped,
            MAX_LISTED_RUNS,
        )
    if candidate is not None:
        return candidate
    if not searched:
        raise ModelNotFoundError(f"MLflow at {store.shown_uri} has no experiment: train a model first")
    where = f"experiment {experiment!r}" if experiment else f"any of the {len(searched)} experiments"
    if skip and next(_iterate_candidates(candidates, experiment, []), None) is not None:
        raise ModelNotFoundError(
            f"there is no previous model: only one finished run with a model in {where} of MLflow at {store.shown_uri}"
        )
    raise ModelNotFoundError(
        f"no finished run with a model in {where} of MLflow at {store.shown_uri}: train one first"
        f"{_describe_other_models(store, searched)}"
    )


def _describe_other_models(store: ModelStore, searched: list[Experiment]) -> str:
    """Return sentences about models that latest and previous ignore, for an error; empty if there are none."""
    names = {
        name: run_id
        for experiment in searched[:MAX_NAMES]
        for name, run_id in other_model_names(store, experiment).items()
    }
    notes = []
    if names:
        name, run_id = next(iter(names.items()))
        notes.append(
            f"there are models of other names than {MODEL_NAME!r}: {join_names(names)}; log with "
            f"name={MODEL_NAME!r}, or request one of them, such as runs:/{run_id}/{name}"
        )
    if reason := store.logged_models.unavailable_reason:
        notes.append(f"{reason}, so only models among the artifacts of runs were found")
    return "".join(f". {note[0].upper()}{note[1:]}" for note in notes)


def newest_run(experiment: str) -> str | None:
    """Return the id of the run that is latest in an experiment, None if the experiment or a model is missing."""
    try:
        candidate = next(_iterate_candidates(Candidates(ModelStore()), experiment, []), None)
    except ModelNotFoundError:
        return None
    return candidate.run.info.run_id if candidate else None


def _iterate_candidates(
    candidates: Candidates, experiment_name: str | None, searched: list[Experiment]
) -> Iterator[Candidate]:
    """Yield the latest model, the previous one, and so on. Append each experiment to `searched`."""
    store = candidates.store
    for experiment in [_find_experiment(store, experiment_name)] if experiment_name else store.experiments():
        searched.append(experiment)
        yield from candidates.in_experiment(experiment)


def _find_experiment(store: ModelStore, name: str) -> Experiment:
    experiment = store.experiment(name)
    if experiment is None or experiment.lifecycle_stage != "active":
        known = [each.name for each in islice(store.experiments(), MAX_NAMES)]
        state = "is deleted" if experiment is not None else "does not exist"
        raise ModelNotFoundError(
            f"FRAUD_EXPERIMENT: experiment {name!r} {state} in MLflow at {store.shown_uri}; it has: "
            f"{', '.join(map(repr, known)) or 'none'}"
        )
    return experiment


def _find_version(store: ModelStore, candidate: Candidate) -> ModelVersion | None:
    """Return the newest registered version of the same model, None if it is not registered."""
    run_id = candidate.run.info.run_id
    same = {candidate.model_uri, f"runs:/{run_id}/model"}
    versions = [version for version in store.versions_of_run(run_id) if version.source in same]
    return max(versions, key=lambda version: int(version.version), default=None)


def _read_description(store: ModelStore, candidate: Candidate) -> Description:
    text = store.read_text(candidate.model_uri, "MLmodel")
    if text is None:
        raise ModelNotFoundError(
            f"run {candidate.run.info.run_id} has a model, but its MLmodel file is gone from {candidate.model_uri}: "
            "log the model again, or choose another"
        )
    return Description.parse(text)


def _read_requirements(store: ModelStore, candidate: Candidate) -> list[str]:
    text = store.read_text(candidate.model_uri, "requirements.txt")
    if text is not None:
        return text.splitlines()
    return requirements.pip_lines_of_conda(store.read_text(candidate.model_uri, "conda.yaml") or "")


def _threshold(description: Description, run: Run) -> float | None:
    """Return the threshold in the model's metadata, else the one in the run's tag, else None.

    Parameters of the run are ignored: their threshold may belong to any step (VarianceThreshold).
    """
    if description.threshold is not None:
        return description.threshold
    return parse_threshold(run.data.tags.get(THRESHOLD_TAG), f"the tag {THRESHOLD_TAG} of run {run.info.run_id}")
