"""Compare sampling and calibration methods on later payments of the simulator."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench

PAYMENTS, DAYS = 40_000, 10
"""As `fraud train` simulates them."""
TREES = 150
ALERTS = 0.01
"""The alert budget: so many of the held-out payments, those with the highest probability, are reviewed."""
CALIBRATIONS = ("sigmoid", "isotonic")
METRICS = ("average_precision", "brier_score", "recall_of_alerts", "precision", "recall", "calibration_error")


def measure(bench: Bench, *, seeds: int) -> dict[str, Any]:
    """Train each contender once a seed, with data of that seed, on one core."""
    from include.training.pipeline import SAMPLINGS

    contenders: dict[str, list[dict[str, float]]] = {}
    counts: list[dict[str, int]] = []
    with _one_core():
        for seed in range(1, seeds + 1):
            parts = _parts(seed)
            counts.append(
                {
                    f"{name}_{what}": int(number)
                    for name, part in (("train", parts.train), ("held_out", parts.held_out))
                    for what, number in (("payments", len(part)), ("frauds", part["is_fraud"].sum()))
                }
            )
            trainers: dict[str, Callable[[], Any]] = {name: _trainer(name, parts.train, seed) for name in SAMPLINGS}
            trainers |= {f"none, then {name}": _calibrated_trainer(name, parts.train, seed) for name in CALIBRATIONS}
            for name, train in trainers.items():
                found = _evaluate(train, parts.held_out)
                contenders.setdefault(name, []).append(found)
                bench.say(f"seed {seed}, {name}: average precision {found['average_precision']:.3f}")
    return {"trees": TREES, "alerts": ALERTS, "counts": counts, "contenders": contenders}


def _parts(seed: int) -> Any:
    from include.models.payment_features import COLUMNS
    from include.payments.columns import MEASURED
    from include.producer.simulator import Simulator
    from include.training.training_data import split, validate

    return split(validate(Simulator(seed=seed, per_day=PAYMENTS / DAYS).frame(days=DAYS), COLUMNS, MEASURED))


def _trainer(sampling: str, payments: Any, seed: int) -> Callable[[], Any]:
    from include.training.pipeline import pipeline_config

    def train() -> Any:
        with tempfile.TemporaryDirectory() as folder:
            return pipeline_config("payment", TREES, seed, sampling).fit(payments, Path(folder))[0]

    return train


def _calibrated_trainer(method: str, payments: Any, seed: int) -> Callable[[], Any]:
    """Return a trainer of the forest on the earlier payments, calibrated on the later ones."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator

    from include.training.training_data import split

    def train() -> Any:
        parts = split(payments)
        forest = _trainer("none", parts.train, seed)()
        later = parts.held_out
        calibrated = CalibratedClassifierCV(FrozenEstimator(forest), method=method)
        return calibrated.fit(later[list(forest.feature_names_in_)], later["is_fraud"])

    return train


def _evaluate(train: Callable[[], Any], held_out: Any) -> dict[str, float]:
    import numpy as np

    from include.training.evaluation import compute_metrics, predict

    began = time.perf_counter()
    model = train()
    seconds = time.perf_counter() - began
    truth = held_out["is_fraud"].to_numpy()
    predictions, probabilities = predict(model, held_out[list(model.feature_names_in_)], 0.5)
    alerts = np.argsort(-probabilities, kind="stable")[: round(len(truth) * ALERTS)]
    found = compute_metrics(truth, predictions, probabilities) | {"recall_of_alerts": truth[alerts].sum() / truth.sum()}
    return {
        **{name: float(found[name]) for name in METRICS},
        "expected_frauds": float(probabilities.sum() / truth.sum()),
        "training_seconds": seconds,
    }


@contextmanager
def _one_core() -> Iterator[None]:
    """Restrict this process to one core, so that the seconds of contenders can be compared."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
