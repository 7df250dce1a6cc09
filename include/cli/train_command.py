"""`fraud train`."""

from __future__ import annotations

import logging
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from include.settings import Settings

DEFAULT = "fraud_scoring"


class Features(StrEnum):
    payment = "payment"
    numeric = "numeric"


class Sampling(StrEnum):
    none = "none"
    weights = "weights"
    smote = "smote"
    smotenc = "smotenc"


def train(
    csv: Annotated[
        Path | None, typer.Option(help="Payments to learn from; without it, simulated ones.", show_default=False)
    ] = None,
    confirmed: Annotated[
        str | None,
        typer.Option(
            metavar="URL_OR_FOLDER",
            help="Learn from the payments there as well, which people have confirmed: where `fraud export-confirmed` "
            "stores them (FRAUD_CONFIRMED_URL).",
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
            help="How to compensate for the small share of frauds: none, class weights, or synthetic frauds by SMOTE "
            "or SMOTENC. docs/training.md compares them."
        ),
    ] = Sampling.none,
    experiment: Annotated[
        str | None,
        typer.Option(help="MLflow experiment.", show_default=f"FRAUD_EXPERIMENT, else {DEFAULT}"),
    ] = None,
    name: Annotated[str, typer.Option("--name", "--registered-name", help="Registered model.")] = DEFAULT,
    trees: Annotated[int, typer.Option(min=1, help="Trees in the forest.")] = 150,
    threshold: Annotated[float, typer.Option(help="Fraud probability from which a payment counts as fraud.")] = 0.5,
    payments: Annotated[int, typer.Option("--rows", min=1, help="How many payments to simulate, about.")] = 40_000,
    days: Annotated[float, typer.Option(min=0.1, help="How many days to simulate.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the simulator, the sampling and the forest.")] = 42,
    if_none: Annotated[bool, typer.Option("--if-none", help="Only where the experiment has no model yet.")] = False,
) -> None:
    """Train a model, judge it on the latest payments, log it to the MLflow at MLFLOW_TRACKING_URI and register it."""
    settings = Settings.from_environment()
    steps = logging.getLogger("include")
    steps.addHandler(logging.StreamHandler())
    steps.setLevel(logging.INFO)
    experiment = experiment or settings.experiment or DEFAULT
    if if_none:
        from include.models.resolve import newest_run

        if there := newest_run(experiment):
            typer.echo(f"experiment {experiment} has a model: run {there}")
            return
    from include.training.training_data import DataSource, digest, read_csv

    if csv is not None:
        frame, source = read_csv(csv)
    else:
        from include.producer.simulator import Simulator

        frame = Simulator(seed=seed, per_day=payments / days).frame(days=days)
        source = DataSource(f"simulator, seed {seed}, {days:g} days", digest(frame))
    people_say = None
    if confirmed is not None:
        from include.training.confirmed_data import read_confirmed

        people_say = read_confirmed(confirmed)
    # Slow to import: an unusable file is known before.
    from include.training.evaluation import COUNTS
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
        confirmed=people_say,
    )
    typer.echo(f"{'run':<18}{trained.run_id}")
    typer.echo(f"{'model':<18}{trained.name}, version {trained.version}")
    for metric, value in trained.metrics.items():
        typer.echo(f"{metric:<18}{value:.0f}" if metric in COUNTS else f"{metric:<18}{value:.3f}")
    for page in trained.pages:
        typer.echo(page)
