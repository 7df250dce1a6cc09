"""Check MLflow: whether it answers, which model would score, and whether its files and libraries are available."""

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

_MAX_EXPERIMENTS = 20


def check_models(settings: Settings, requested: str, chosen_by: str) -> Iterator[CheckResult]:
    """Yield results for MLflow, FRAUD_EXPERIMENT, the model, and its files, which are downloaded into the model cache.

    `requested` is the model that the next scheduled run requests, `chosen_by` what chose it. Raise SettingError or
    ModelError if MLflow or the model cannot be used.
    """
    store = ModelStore()
    next(store.experiments(), None)
    if old := store.server.version_error():
        raise SettingError(f"{TRACKING}={store.shown_uri}: {old}")
    version = store.server.version()
    yield CheckResult("MLflow", f"answers at {store.shown_uri}" + (f", version {version}" if version else ""))
    if settings.experiment is None and requested in ("latest", "previous"):
        yield CheckResult("FRAUD_EXPERIMENT", _experiments(store))
    cache = ModelCache.from_settings(settings)
    run = resolve(
        requested,
        experiment=settings.experiment,
        chosen_by=chosen_by,
        trust_check_cache=None if settings.allow_pickles else cache,
        unchecked_requirements=settings.unchecked_requirements,
    )
    registered = f", {run.name} version {run.version}" if run.name else ""
    yield CheckResult(
        "model", f"{requested} (by {chosen_by}) is run {run.run_id}{registered}, of experiment {run.experiment}"
    )
    cache.fetch(run)
    yield CheckResult("model files", f"in {settings.model_cache}")


def _experiments(store: ModelStore) -> str:
    """Return a text that names the experiments whose models could go live.

    They are those with a model, and those that are newer than any of these: their first model would go live.
    """
    candidates, with_model, newer = Candidates(store), [], []
    newest = list(islice(store.experiments(), _MAX_EXPERIMENTS + 1))
    for experiment in newest[:_MAX_EXPERIMENTS]:
        if next(candidates.in_experiment(experiment), None) is not None:
            with_model.append(repr(experiment.name))
        elif not with_model:
            newer.append(repr(experiment.name))
    text = "not set, so any experiment of this MLflow can go live"
    if with_model:
        text += f"; with a model, the newest first: {', '.join(with_model)}"
    if newer:
        text += f"; newer and without a model, so the first model there would go live: {', '.join(newer)}"
    if len(newest) > _MAX_EXPERIMENTS:
        text += f"; only the newest {_MAX_EXPERIMENTS} experiments were checked"
    return f"{text}. Set FRAUD_EXPERIMENT to use only one of them"
