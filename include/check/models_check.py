"""MLflow: whether it answers, which model would score, and whether its files and libraries are there."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from include.check.check_result import CheckResult
from include.errors import SettingError
from include.models.candidates import Candidates
from include.models.mlflow_client import ModelStore
from include.models.model_cache import ModelCache
from include.models.resolve import resolve
from include.models.tracking_uri import TRACKING
from include.settings import Settings

# Experiments that are named where any could go live.
_NAMED = 20


def check_models(settings: Settings, asked: str, chosen_by: str) -> Iterator[CheckResult]:
    """`asked` and `chosen_by`: which model the next scheduled run would ask for, and who says so."""
    store = ModelStore()
    next(store.experiments(), None)
    if old := store.server.version_error():
        raise SettingError(f"{TRACKING}={store.shown_uri}: {old}")
    version = store.server.version()
    yield CheckResult("MLflow", f"answers at {store.shown_uri}" + (f", version {version}" if version else ""))
    if settings.experiment is None and asked in ("latest", "previous"):
        yield CheckResult("FRAUD_EXPERIMENT", _experiments(store))
    cache = ModelCache.from_settings(settings)
    run = resolve(
        asked,
        experiment=settings.experiment,
        chosen_by=chosen_by,
        trust_check_cache=None if settings.allow_pickles else cache,
        unchecked_requirements=settings.unchecked_requirements,
    )
    registered = f", {run.name} version {run.version}" if run.name else ""
    yield CheckResult(
        "model", f"{asked} (by {chosen_by}) is run {run.run_id}{registered}, of experiment {run.experiment}"
    )
    cache.fetch(run)
    yield CheckResult("model files", f"in {settings.model_cache}")


def _experiments(store: ModelStore) -> str:
    """Return which experiments could go live: those with a model, and newer ones, whose first model would."""
    candidates, with_model, newer = Candidates(store), [], []
    shown = list(islice(store.experiments(), _NAMED + 1))
    for experiment in shown[:_NAMED]:
        if next(candidates.in_experiment(experiment), None) is not None:
            with_model.append(repr(experiment.name))
        elif not with_model:
            newer.append(repr(experiment.name))
    text = "not set, so any experiment of this MLflow can go live"
    if with_model:
        text += f"; with a model, the newest first: {', '.join(with_model)}"
    if newer:
        text += f"; newer and without a model, so the first model there would go live: {', '.join(newer)}"
    if len(shown) > _NAMED:
        text += f"; only the newest {_NAMED} experiments were looked at"
    return f"{text}. Set FRAUD_EXPERIMENT to use only one of them"
