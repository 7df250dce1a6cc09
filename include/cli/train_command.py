"""The command `fraud train`."""

from __future__ import annotations

import logging
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from include.cli.console import JsonSwitch, Output, StderrHandler, output, progress
from include.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from include.training.train import TrainedRun
    from include.training.training_data import DataSource

DEFAULT_EXPERIMENT = DEFAULT_MODEL = "fraud_scoring"
_PROGRESS_SECONDS = 10.0


class Features(StrEnum):
    """The inputs that a model can be trained on."""

    payment = "payment"
    numeric = "numeric"


class Sampling(StrEnum):
    """The ways in which training can compensate for the small share of frauds."""

    none = "none"
    weights = "weights"
    smote = "smote"
    smotenc = "smotenc"


def train(
    csv: Annotated[
        Path | None, typer.Option(help="Payments to learn from. Default: simulated payments.", show_default=False)
    ] = None,
    confirmed: Annotated[
        str | None,
        typer.Option(
            metavar="URL_OR_FOLDER",
            help="Also learn from the confirmed payments that `fraud export-confirmed` stored here "
            "(FRAUD_CONFIRMED_URL).",
            show_default=False,
        ),
    ] = None,
    features: Annotated[
        Features,
        typer.Option(help="payment: features computed inside the model; numeric: the payments' own numbers."),
    ] = Features.payment,
    sampling: Annotated[
        Sampling,
        typer.Option(
            help="How to compensate for the small share of frauds: not at all, by class weights, or by synthetic "
            "frauds from SMOTE or SMOTENC. docs/training.md compares them."
        ),
    ] = Sampling.none,
    experiment: Annotated[
        str | None,
        typer.Option(help="MLflow experiment.", show_default=f"FRAUD_EXPERIMENT, else {DEFAULT_EXPERIMENT}"),
    ] = None,
    name: Annotated[str, typer.Option("--name", "--registered-name", help="Registered model.")] = DEFAULT_MODEL,
    trees: Annotated[int, typer.Option(min=1, help="Trees in the forest.")] = 150,
    threshold: Annotated[float, typer.Option(help="Fraud probability from which a payment counts as fraud.")] = 0.5,
    payments: Annotated[int, typer.Option("--rows", min=1, help="Approximate number of payments to simulate.")] = (
        40_000
    ),
    days: Annotated[float, typer.Option(min=0.1, help="Days to simulate.")] = 10,
    seed: Annotated[int, typer.Option(help="Seed of the simulator, the sampling and the forest.")] = 42,
    if_none: Annotated[bool, typer.Option("--if-none", help="Train only if the experiment has no model yet.")] = False,
    json: JsonSwitch = False,
) -> None:
    """Train a model, evaluate it on the latest payments, log it to the MLflow at MLFLOW_TRACKING_URI and register it.

    Exit code 0: a model is trained, or --if-none found one; 1: the data cannot train a model, or MLflow does not
    answer.
    """
    settings, out = Settings.from_environment(), output(json=json)
    steps = logging.getLogger("include")
    steps.addHandler(StderrHandler())
    steps.setLevel(logging.INFO)
    experiment = experiment or settings.experiment or DEFAULT_EXPERIMENT
    if if_none:
        from include.models.resolve import newest_run

        if existing := newest_run(experiment):
            out.line(f"experiment {experiment} has a model: run {existing}")
            out.document({"trained": False, "experiment": experiment, "run_id": existing})
            return
    with progress(_PROGRESS_SECONDS) as show:
        show("training", None)
        frame, source = _training_data(csv, seed, payments, days)
        confirmed_payments = None
        if confirmed is not None:
            from include.training.confirmed_data import read_confirmed

            confirmed_payments = read_confirmed(confirmed)
        # The import is slow, so it comes after reading the files: an invalid file is reported at once.
        from include.training.train import train as train_model

        trained = train_model(
            frame,
            experiment=experiment,
            name=name,
            features=features.value,
            trees=trees,
            threshold=threshold,
            seed=seed,
            sampling=sampling.value,
            source=source,
            confirmed=confirmed_payments,
        )
    _report(out, experiment, trained)


def _training_data(csv: Path | None, seed: int, payments: int, days: float) -> tuple[pd.DataFrame, DataSource]:
    from include.training.training_data import DataSource, digest, read_csv

    if csv is not None:
        return read_csv(csv)
    from include.producer.simulator import Simulator

    frame = Simulator(seed=seed, per_day=payments / days).frame(days=days)
    return frame, DataSource(f"simulator, seed {seed}, {days:g} days", digest(frame))


def _report(out: Output, experiment: str, trained: TrainedRun) -> None:
    from include.training.evaluation import COUNT_METRICS

    out.line(f"{'run':<18}{trained.run_id}")
    out.line(f"{'model':<18}{trained.name}, version {trained.version}")
    for metric, value in trained.metrics.items():
        out.line(f"{metric:<18}{value:.0f}" if metric in COUNT_METRICS else f"{metric:<18}{value:.3f}")
    for page in trained.pages:
        out.line(page)
    out.document(
        {
            "trained": True,
            "experiment": experiment,
            "run_id": trained.run_id,
            "model": trained.name,
            "version": trained.version,
            "metrics": trained.metrics,
            "pages": trained.pages,
        }
    )
