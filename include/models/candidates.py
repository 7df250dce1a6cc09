"""Find the runs that latest and previous choose from: FINISHED, not a child run, with a model named `model`.

The number of requests does not grow with the number of runs: one search for the newest runs of an experiment, one for
their logged models (MLflow 3), and, only if these do not suffice, three for all older runs. In an experiment with more
than 100 older models named `model`, each 500 of them cost two more searches, until the wanted candidate is certain.
MLflow 2 records a logged model in a tag of its run. A model that was only copied to a run's artifacts needs one request
per run, so only the first 10 runs without another sign of a model are inspected.
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
MAX_LISTED_RUNS = 10
# MLflow's parser accepts about 3,300 run ids in one filter (sqlparse 0.6.1), and older SQLite 999.
_RUN_IDS_PER_SEARCH = 500
# A run starts before its models are created. The client's clock sets one time and the server's the other: they are
# assumed to differ by less than this.
_MAX_CLOCK_SKEW_MS = 24 * 3600 * 1000
HISTORY_TAG = "mlflow.log-model.history"
_NAME_FILTER = f"name = '{MODEL_NAME}'"
_HISTORY_FILTER = f""" AND tags.`{HISTORY_TAG}` LIKE '%"artifact_path": "{MODEL_NAME}"%'"""


@dataclass(frozen=True)
class Candidate:
    """A run and its model; `version` is the registered version, if the model was requested by one."""

    run: Run
    model_uri: str
    version: ModelVersion | None = None


@dataclass
class Candidates:
    """Find an experiment's candidates.

    `skipped` counts the runs of the newest page whose artifacts were not listed. It does not count older runs without
    a sign of a model.
    """

    store: ModelStore
    skipped: int = 0
    _listed_run_ids: set[str] = field(default_factory=set)

    def in_experiment(self, experiment: Experiment) -> Iterator[Candidate]:
        """Yield the experiment's candidates, the newest (by start time) first.

        Raise ModelStoreError if MLflow does not show whether a run has a model.
        """
        runs, is_last = next(self.store.finished_runs(experiment.experiment_id))
        yield from self._among_newest(experiment.experiment_id, runs)
        if not is_last:
            yield from self._among_older(experiment.experiment_id, {run.info.run_id for run in runs})

    def _among_newest(self, experiment_id: str, runs: list[Run]) -> Iterator[Candidate]:
        logged_uris = self._logged_model_uris(experiment_id, [run.info.run_id for run in runs])
        for run in runs:
            model_uri = logged_uris.get(run.info.run_id) or _uri_from_history(run)
            if model_uri is None:
                self.store.logged_models.check_readable(run)
                model_uri = self._uri_from_artifacts(run)
            if model_uri is not None:
                yield Candidate(run, model_uri)

    def _among_older(self, experiment_id: str, newest_ids: set[str]) -> Iterator[Candidate]:
        logged_uris: dict[str, str] = {}
        searches = (
            self._runs_with_logged_model(experiment_id, newest_ids, logged_uris),
            self._runs(experiment_id, _HISTORY_FILTER),
        )
        last_id = None
        for run in heapq.merge(*searches, key=_newest_first):
            model_uri = logged_uris.get(run.info.run_id) or _uri_from_history(run)
            if run.info.run_id not in newest_ids and run.info.run_id != last_id and model_uri is not None:
                yield Candidate(run, model_uri)
            last_id = run.info.run_id

    def _runs_with_logged_model(
        self, experiment_id: str, newest_ids: set[str], logged_uris: dict[str, str]
    ) -> Iterator[Run]:
        """Yield runs, the newest (by start time) first, and set the URI of each run's newest model in `logged_uris`.

        MLflow returns the models by creation time. A run is yielded only once no model that is still to be read can
        belong to a run that started later.
        """
        models = self.store.logged_models.search(experiment_id, _NAME_FILTER)
        # A heap of the next run of each search, with the rest of that search.
        next_runs: list[tuple[int, str, Run, Iterator[Run]]] = []

        def push_next(runs: Iterator[Run]) -> None:
            if (run := next(runs, None)) is not None:
                heapq.heappush(next_runs, (*_newest_first(run), run, runs))

        def pop_started_since(start_ms: float) -> Iterator[Run]:
            while next_runs and next_runs[0][2].info.start_time >= start_ms:
                _, _, run, runs = heapq.heappop(next_runs)
                push_next(runs)
                yield run

        while page := list(islice(models, _RUN_IDS_PER_SEARCH)):
            run_ids = {str(model.source_run_id) for model in page if model.source_run_id}
            run_ids -= newest_ids | logged_uris.keys()
            for model in page:
                logged_uris.setdefault(str(model.source_run_id), f"models:/{model.model_id}")
            if run_ids:
                push_next(self._runs(experiment_id, f" AND attributes.run_id IN ({_quote(run_ids)})"))
            yield from pop_started_since(page[-1].creation_timestamp + _MAX_CLOCK_SKEW_MS)
        yield from pop_started_since(-math.inf)

    def _runs(self, experiment_id: str, where: str) -> Iterator[Run]:
        for runs, _ in self.store.finished_runs(experiment_id, where):
            yield from runs

    def _logged_model_uris(self, experiment_id: str, run_ids: list[str]) -> dict[str, str]:
        """Return the URI of the newest model of each of these runs that has one."""
        if not run_ids:
            return {}
        where = f"{_NAME_FILTER} AND source_run_id IN ({_quote(run_ids)})"
        models = self.store.logged_models.search(experiment_id, where)
        return {str(model.source_run_id): f"models:/{model.model_id}" for model in reversed(list(models))}

    def _uri_from_artifacts(self, run: Run) -> str | None:
        if run.info.run_id not in self._listed_run_ids and len(self._listed_run_ids) >= MAX_LISTED_RUNS:
            self.skipped += 1
            return None
        self._listed_run_ids.add(run.info.run_id)
        try:
            return self.store.model_among_artifacts(run)
        except UntrustedModelError as error:
            # Other users of this MLflow may store artifacts anywhere.
            log.warning("run %s is skipped: %s", run.info.run_id, error)
            return None
        except ModelStoreError as error:
            if is_missing_bucket(error):
                log.warning("run %s is skipped, its artifacts are gone: %s", run.info.run_id, error)
                return None
            # The run may have a model, and then no older model is the latest.
            raise type(error)(
                f"cannot determine whether run {run.info.run_id} has a model: {error}. If the run is not yours, set "
                "FRAUD_EXPERIMENT to your experiment, or delete the run in MLflow"
            ) from error


def model_names(store: ModelStore, run: Run) -> list[str]:
    """Return the names of all models of a run, sorted; of models among its artifacts, those in the first 10 folders."""
    logged = store.logged_models.search(run.info.experiment_id, f"source_run_id = '{run.info.run_id}'")
    names = {str(model.name) for model in logged} | _names_from_history(run)
    try:
        folders = [path for path in store.list_artifacts(run) if path not in names][:MAX_LISTED_RUNS]
        names.update(folder for folder in folders if store.model_among_artifacts(run, folder))
    except UntrustedModelError as error:
        log.debug("artifacts of run %s are not listed: %s", run.info.run_id, error)
    return sorted(names)


def other_model_names(store: ModelStore, experiment: Experiment) -> dict[str, str]:
    """Return the names of an experiment's models, other than `model`, each with the newest run that has one.

    Only the newest page of runs is searched.
    """
    names: dict[str, str] = {}
    runs, _ = next(store.finished_runs(experiment.experiment_id))
    run_ids = [run.info.run_id for run in runs]
    if runs:
        for model in store.logged_models.search(experiment.experiment_id, f"source_run_id IN ({_quote(run_ids)})"):
            names.setdefault(str(model.name), str(model.source_run_id))
    for run in runs:
        for name in _names_from_history(run):
            names.setdefault(name, run.info.run_id)
    names.pop(MODEL_NAME, None)
    return names


def _uri_from_history(run: Run) -> str | None:
    return f"{run.info.artifact_uri}/{MODEL_NAME}" if MODEL_NAME in _names_from_history(run) else None


def _names_from_history(run: Run) -> set[str]:
    """Return the artifact paths of the models that MLflow 2 recorded in the run's tag."""
    try:
        return {str(entry["artifact_path"]) for entry in json.loads(run.data.tags.get(HISTORY_TAG, "[]"))}
    except (ValueError, TypeError, KeyError):
        # MLflow cuts off a text that is too long for a tag.
        return set()


def _quote(run_ids: Iterable[str]) -> str:
    return ", ".join(f"'{run_id}'" for run_id in run_ids)


def _newest_first(run: Run) -> tuple[int, str]:
    """Return a sort key that puts the newest run first."""
    return (-run.info.start_time, run.info.run_id)
