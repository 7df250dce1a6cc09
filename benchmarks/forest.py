"""Train the forest that all contenders score with, once: as deep and large as real ones, from one seed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.bench import EXPERIMENT, Bench, BenchmarkError, environment

if TYPE_CHECKING:
    import pandas as pd

TREES = 150
LEAST_DEPTH, LEAST_NODES = 30, 2_900
ROWS, FRAUD_SHARE, SEED = 36_000, 0.02, 7
# Share of wrong labels (unnoticed frauds, complaints about genuine payments). They make real forests deep.
WRONG_LABELS = 0.003


@dataclass(frozen=True)
class Forest:
    """Hold the forest's MLflow run and, in `file`, the fitted pipeline (joblib) for contenders without MLflow."""

    run_id: str
    depth: float
    nodes: float
    file: str
    run: dict[str, Any]

    def line(self) -> str:
        """Return size and depth in one line."""
        return f"forest of {TREES} trees: mean depth {self.depth:.1f}, {self.nodes:,.0f} nodes a tree"


def forest(bench: Bench) -> Forest:
    """Return the forest, trained at the first call. Raises BenchmarkError if it is too small for a comparison."""
    kept = bench.home / "forest.json"
    found = Forest(**json.loads(kept.read_text())) if kept.exists() else _train(bench, kept)
    bench.say(found.line())
    if found.depth < LEAST_DEPTH or found.nodes < LEAST_NODES:
        raise BenchmarkError(f"{found.line()}: at least {LEAST_DEPTH} and {LEAST_NODES:,} are wanted")
    return found


def training_payments() -> pd.DataFrame:
    """Return the simulated payments, some of them with wrong labels, that the forest is trained on."""
    import numpy as np

    from include.producer.simulator import Simulator

    payments = Simulator(SEED, FRAUD_SHARE).frame(ROWS)
    wrong = np.random.default_rng(SEED).random(ROWS) < WRONG_LABELS
    payments["is_fraud"] = np.where(wrong, 1 - payments["is_fraud"], payments["is_fraud"])
    return payments


def _train(bench: Bench, kept: Path) -> Forest:
    import joblib
    import mlflow
    import numpy as np

    from include.models.resolve import DEFAULT, resolve
    from include.training.train import train

    bench.say(f"training a forest of {TREES} trees on {ROWS:,} simulated payments, some two minutes, once")
    payments = training_payments()
    with environment(bench.env):
        # With SMOTE the forest is as deep as in earlier measurements.
        trained = train(
            payments,
            experiment=EXPERIMENT,
            name=EXPERIMENT,
            features="numeric",
            trees=TREES,
            seed=SEED,
            sampling="smote",
        )
        run = resolve("latest", experiment=EXPERIMENT, chosen_by=DEFAULT)
        pipeline = mlflow.sklearn.load_model(f"runs:/{trained.run_id}/model")
    trees = pipeline.steps[-1][1].estimators_
    file = bench.home / "forest.joblib"
    joblib.dump(pipeline, file)
    made = Forest(
        run_id=trained.run_id,
        depth=float(np.mean([tree.get_depth() for tree in trees])),
        nodes=float(np.mean([tree.tree_.node_count for tree in trees])),
        file=str(file),
        run=run.to_dict(),
    )
    kept.write_text(json.dumps(asdict(made), indent=1))
    return made
