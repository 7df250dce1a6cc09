"""Train a model on payments: the result is a finished MLflow run with a registered model."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from importlib.metadata import version as version_of
from pathlib import Path

import mlflow
import pandas as pd
import skops.io
from mlflow.data.pandas_dataset import from_pandas

from include.errors import TrainingError
from include.payments.columns import MEASURED, PREDICTION
from include.training.confirmed_data import ConfirmedPayments
from include.training.evaluation import compute_metrics, draw_plots, predict
from include.training.logged_model import log_model
from include.training.pipeline import SAMPLINGS, PipelineConfig, pipeline_config
from include.training.tracking import mlflow_session, page_urls
from include.training.training_data import TIME, DataSource, DataSplit, digest, split, validate

log = logging.getLogger(__name__)

REQUIREMENTS = ("mlflow", "scikit-learn", "imbalanced-learn", "numpy", "pandas", "scipy", "skops")
EXAMPLE = {
    "trans_date_trans_time": "2024-10-31 15:56:25",
    "category": "home",
    "amt": 16.18,
    "gender": "F",
    "lat": 41.5,
    "long": -72.5,
    "city_pop": 5000.0,
    "dob": "1970-01-01",
    "merch_lat": 41.6,
    "merch_long": -73.1,
}
"""The input example is made up: a payment of the training set would put a person's data into MLflow."""


@dataclass(frozen=True)
class TrainedRun:
    """Describe the MLflow run and the registered model of a training. `pages` are their URLs."""

    run_id: str
    metrics: dict[str, float]
    name: str
    version: str
    pages: tuple[str, ...]


def train(
    payments: pd.DataFrame,
    *,
    experiment: str = "fraud_scoring",
    name: str = "fraud_scoring",
    features: str = "payment",
    trees: int = 150,
    threshold: float = 0.5,
    seed: int = 42,
    sampling: str = SAMPLINGS[0],
    source: DataSource | None = None,
    confirmed: ConfirmedPayments | None = None,
) -> TrainedRun:
    """Train on the earlier payments, evaluate on the later ones, log to MLflow and register the model as `name`.

    `threshold` is the probability, in (0, 1), from which a payment counts as fraud. Confirmed payments replace others
    with the same trans_num. Raise TrainingError if the options or the payments are invalid, and SettingError or
    ModelStoreError if MLflow cannot be used.
    """
    if not 0 < threshold < 1:
        raise TrainingError(f"threshold {threshold}: give a number between 0 and 1")
    config = pipeline_config(features, trees, seed, sampling)
    source = source or DataSource("payments", digest(payments))
    if confirmed is not None:
        confirmed = confirmed.drop_unusable(required=config.columns if features == "numeric" else ())
        payments = confirmed.append_to(payments)
    payments = validate(payments, tuple(dict.fromkeys((TIME, *config.columns))), MEASURED)
    if features == "numeric":
        incomplete = [column for column in config.columns if payments[column].isna().any()]
        if incomplete:
            raise TrainingError(
                f"numeric features need a value in every row, and values are missing in: {', '.join(incomplete)}"
            )
    confirmed_count = len(confirmed.frame) if confirmed else 0
    parts = split(payments, second_source_rows=confirmed_count)
    confirmed_trained = int((parts.train.index >= len(payments) - confirmed_count).sum())
    if confirmed_count and not confirmed_trained:
        log.warning(
            "all %d confirmed payments are held out, so the model learns from none of them: they are later than the "
            "other data, and too few to be split. Confirm more payments, or give newer reference data",
            confirmed_count,
        )
    with mlflow_session() as address, tempfile.TemporaryDirectory() as folder:
        log.info(
            "training on %d payments with %d frauds, evaluating on %d later ones with %d frauds",
            len(parts.train),
            parts.train[PREDICTION].sum(),
            len(parts.held_out),
            parts.held_out[PREDICTION].sum(),
        )
        mlflow.set_experiment(experiment)
        with mlflow.start_run() as run:
            mlflow.log_params(
                {
                    "features": features,
                    "columns": ", ".join(config.columns),
                    "trees": trees,
                    "threshold": threshold,
                    "seed": seed,
                    "sampling": sampling,
                    "data": source.name,
                    "data_sha256": source.sha256,
                    **parts.to_params(),
                    **(confirmed.to_params() | {"confirmed_trained": confirmed_trained} if confirmed else {}),
                }
            )
            mlflow.log_input(from_pandas(payments, targets=PREDICTION, name=source.name), "training")
            metrics, registered = _fit_and_log(config, parts, threshold, name, Path(folder))
            mlflow.log_metrics(metrics)
        run_id = run.info.run_id
        trained = TrainedRun(
            run_id, metrics, name, registered, page_urls(address, run.info.experiment_id, run_id, name, registered)
        )
    log.info("MLflow run %s: model %s, version %s", run_id, name, registered)
    return trained


def _fit_and_log(
    config: PipelineConfig, parts: DataSplit, threshold: float, name: str, folder: Path
) -> tuple[dict[str, float], str]:
    """Return the metrics and the registered version. Registering is the last step, so a failed run registers none."""
    pipeline, code_files = config.fit(parts.train, folder)
    labels = parts.held_out[PREDICTION].to_numpy()
    predictions, probabilities = predict(pipeline, parts.held_out[list(config.columns)], threshold)
    metrics = compute_metrics(labels, predictions, probabilities)
    for file, figure in draw_plots(labels, predictions, probabilities).items():
        mlflow.log_figure(figure, f"plots/{file}")
    example = pd.DataFrame([EXAMPLE])[list(config.columns)]
    version = log_model(
        pipeline,
        name,
        signature=mlflow.models.infer_signature(example, pipeline.predict(example)),
        input_example=example,
        pip_requirements=[f"{package}=={version_of(package)}" for package in REQUIREMENTS],
        code_paths=[str(file) for file in code_files] or None,
        serialization_format="skops",
        # The pipeline was just built here, so its types are trusted. MLflow stores the list for its loader.
        skops_trusted_types=skops.io.get_untrusted_types(data=skops.io.dumps(pipeline)),
        metadata={"threshold": threshold} if threshold != 0.5 else None,
    )
    return metrics, version
