"""MLflow: whether it answers, which model would score, and whether its files and libraries are there."""

from __future__ import annotations

from collections.abc import Iterator

from include.check.check import Found
from include.models.cache import ModelCache
from include.models.resolve import resolve
from include.models.store import Store
from include.settings import Settings


def check_models(settings: Settings, asked: str, chosen_by: str) -> Iterator[Found]:
    """`asked` and `chosen_by`: which model the next scheduled run would ask for, and who says so."""
    store = Store()
    next(store.experiments(), None)
    yield Found("MLflow", f"answers at {store.shown_uri}")
    cache = ModelCache.of(settings)
    without_pickles = None if settings.allow_pickles else cache
    run = resolve(asked, experiment=settings.experiment, chosen_by=chosen_by, without_pickles=without_pickles)
    registered = f", {run.name} version {run.version}" if run.name else ""
    yield Found("model", f"{asked} (by {chosen_by}) is run {run.run_id}{registered}, of experiment {run.experiment}")
    cache.fetch(run)
    yield Found("model files", f"in {settings.model_cache}")
