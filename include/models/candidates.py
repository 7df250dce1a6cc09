"""The runs that latest and previous choose from: FINISHED, no child of another run, and with a model named `model`.

The number of requests does not grow with the runs: one search for the newest runs of an experiment, one for their
logged models (MLflow 3), and, only if these do not suffice, three for all older runs. Experiments with more than 100
older models named `model` cost two searches more for each 500 of them, until the wanted candidate is certain. MLflow 2
records a logged model in a tag of its run. A model that was only copied to a run's artifacts needs one request a run,
so only the first 10 runs without another sign are inspected.
"""

from __future__ import annotations

import heapq
import json
import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from include.errors import ModelStoreError, UntrustedModelError
from include.models.mlflow_client import MODEL_NAME, ModelStore
from include.models.mlflow_errors import is_missing_bucket

if TYPE_CHECKING:
    from mlflow.entities import Experiment, Run
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger(__name__)

# Runs without any sign of a model whose artifacts are listed, in all experiments together.
MOST_LISTED = 10
# Run ids in one search. MLflow's parser takes about 3,300 (sqlparse 0.6.1), and older SQLite 999.
_IDS = 500
# A run starts before its models are created, by clocks that differ by less than this (ms): the client's and the
# server's.
_CLOCKS = 24 * 3600 * 1000
HISTORY_TAG = "mlflow.log-model.history"
_NAMED = f"name = '{MODEL_NAME}'"
_IN_HISTORY = f""" AND tags.`{HISTORY_TAG}` LIKE '%"artifact_path": "{MODEL_NAME}"%'"""


@dataclass(frozen=True)
class Candidate:
    run: Run
    model_uri: str
    version: ModelVersion | None = None


@dataclass
class Candidates:
    """Find an experiment's candidates, the newest (by start time) first. `skipped` counts the runs of the newest page
    whose artifacts were not listed; older runs without a sign of a model are not counted."""

    store: ModelStore
    skipped: int = 0
    _listed: set[str] = field(default_factory=set)

    def of(self, experiment: Experiment) -> Iterator[Candidate]:
        for runs, is_last in self.store.finished_runs(experiment.experiment_id):
            yield from self._newest(experiment.experiment_id, runs)
            if not is_last:
                yield from self._older(experiment.experiment_id, {run.info.run_id for run in runs})
            return

    def _newest(self, experiment_id: str, runs: list[Run]) -> Iterator[Candidate]:
        logged = self._logged(experiment_id, [run.info.run_id for run in runs])
        for run in runs:
            model_uri = logged.get(run.info.run_id) or _in_history(run)
            if model_uri is None:
                self.store.logged_models.check_readable(run)
                model_uri = self._listing(run)
            if model_uri is not None:
                yield Candidate(run, model_uri)

    def _older(self, experiment_id: str, newest: set[str]) -> Iterator[Candidate]:
        logged: dict[str, str] = {}
        searches = (self._with_logged_model(experiment_id, newest, logged), self._runs(experiment_id, _IN_HISTORY))
        last = None
        for run in heapq.merge(*searches, key=_age):
            model_uri = logged.get(run.info.run_id) or _in_history(run)
            if run.info.run_id not in newest and run.info.run_id != last and model_uri is not None:
                yield Candidate(run, model_uri)
            last = run.info.run_id

    def _with_logged_model(self, experiment_id: str, passed: set[str], logged: dict[str, str]) -> Iterator[Run]:
        """Yield runs in the order of their start, from models in the order of their creation: a run waits until no
        model that is still to come can be of a later one. Fill `logged` with the newest model of each run."""
        models = self.store.logged_models.search(experiment_id, _NAMED)
        waiting: list[tuple[int, str, Run, Iterator[Run]]] = []

        def await_next(runs: Iterator[Run]) -> None:
            if (run := next(runs, None)) is not None:
                heapq.heappush(waiting, (*_age(run), run, runs))

        def newest_until(start: float) -> Iterator[Run]:
            while waiting and waiting[0][2].info.start_time >= start:
                _, _, run, others = heapq.heappop(waiting)
                await_next(others)
                yield run

        while found := list(islice(models, _IDS)):
            ids = {str(model.source_run_id) for model in found if model.source_run_id} - passed - logged.keys()
            for model in found:
                logged.setdefault(str(model.source_run_id), f"models:/{model.model_id}")
            if ids:
                await_next(self._runs(experiment_id, f" AND attributes.run_id IN ({_quoted(ids)})"))
            yield from newest_until(found[-1].creation_timestamp + _CLOCKS)
        yield from newest_until(-math.inf)

    def _runs(self, experiment_id: str, where: str) -> Iterator[Run]:
        for runs, _ in self.store.finished_runs(experiment_id, where):
            yield from runs

    def _logged(self, experiment_id: str, run_ids: list[str]) -> dict[str, str]:
        """Return the newest model of each of these runs."""
        if not run_ids:
            return {}
        models = self.store.logged_models.search(experiment_id, f"{_NAMED} AND source_run_id IN ({_quoted(run_ids)})")
        return {str(model.source_run_id): f"models:/{model.model_id}" for model in reversed(list(models))}

    def _listing(self, run: Run) -> str | None:
        if run.info.run_id not in self._listed and len(self._listed) >= MOST_LISTED:
            self.skipped += 1
            return None
        self._listed.add(run.info.run_id)
        try:
            return self.store.model_among_artifacts(run)
        except UntrustedModelError as error:
            # Other users of this MLflow may store artifacts anywhere.
            log.warning("passed over: %s", error)
            return None
        except ModelStoreError as error:
            if is_missing_bucket(error):
                log.warning("passed over: run %s, for its artifacts are gone: %s", run.info.run_id, error)
                return None
            # It may have a model, and then no older one is the latest.
            raise type(error)(
                f"whether run {run.info.run_id} has a model is unknown: {error}. If the run is none of yours, set "
                "FRAUD_EXPERIMENT, or delete it in MLflow"
            ) from error


def names_of(store: ModelStore, run: Run) -> list[str]:
    """Return the names of all models of a run, sorted."""
    logged = store.logged_models.search(run.info.experiment_id, f"source_run_id = '{run.info.run_id}'")
    names = {str(model.name) for model in logged} | _history(run)
    try:
        folders = [path for path in store.artifacts(run) if path not in names][:MOST_LISTED]
        names.update(folder for folder in folders if store.model_among_artifacts(run, folder))
    except UntrustedModelError as error:
        log.debug("not listed: %s", error)
    return sorted(names)


def other_names(store: ModelStore, experiment: Experiment) -> dict[str, str]:
    """Return the names of models in an experiment, other than `model`, each with the newest run that has one."""
    names: dict[str, str] = {}
    for runs, _ in store.finished_runs(experiment.experiment_id):
        by_id = {run.info.run_id: run for run in runs}
        if runs:
            where = f"source_run_id IN ({_quoted(by_id)})"
            for model in store.logged_models.search(experiment.experiment_id, where):
                if model.source_run_id in by_id:
                    names.setdefault(str(model.name), str(model.source_run_id))
        for run in runs:
            for name in _history(run):
                names.setdefault(name, run.info.run_id)
        break
    names.pop(MODEL_NAME, None)
    return names


def _in_history(run: Run) -> str | None:
    return f"{run.info.artifact_uri}/{MODEL_NAME}" if MODEL_NAME in _history(run) else None


def _history(run: Run) -> set[str]:
    """Return the artifact paths of models that MLflow 2 noted."""
    try:
        return {str(entry["artifact_path"]) for entry in json.loads(run.data.tags.get(HISTORY_TAG, "[]"))}
    except (ValueError, TypeError, KeyError):
        # Cut off, where it was too long for a tag.
        return set()


def _quoted(run_ids: Iterable[str]) -> str:
    return ", ".join(f"'{run_id}'" for run_id in run_ids)


def _age(run: Run) -> tuple[int, str]:
    """Return what sorts the newest first."""
    return (-run.info.start_time, run.info.run_id)
