"""Two models in a new experiment of the stack's MLflow: the newest ones there, so `latest` and `previous` mean them."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import boto3
import mlflow
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.models import infer_signature
from sklearn.tree import DecisionTreeClassifier

from tests.support.live_stack import LiveStack


@dataclass(frozen=True)
class TwoModels:
    """MLflow run ids of two models. Only `latest` is registered, as version 1 of `name`."""

    latest: str
    previous: str
    name: str


@contextmanager
def two_models(stack: LiveStack) -> Iterator[TwoModels]:
    """Log two models: `latest` predicts fraud above an amount of 500, `previous` above 900."""
    name = f"system {uuid.uuid4().hex[:8]}"
    client = MlflowClient(stack.mlflow_uri)
    with _mlflow_of(stack):
        experiment = client.create_experiment(name)
        previous, latest = _run(experiment, 900), _run(experiment, 500, name)
    yield TwoModels(latest, previous, name)
    client.delete_registered_model(name)
    client.delete_experiment(experiment)


@contextmanager
def _mlflow_of(stack: LiveStack) -> Iterator[None]:
    """For as long as it takes: other tests have other stacks."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # boto3's own session keeps the keys that it was made with, MLflow a client for each address that it is told.
        patch.setattr(boto3, "DEFAULT_SESSION", None)
        patch.setenv("MLFLOW_S3_ENDPOINT_URL", stack.env["AWS_ENDPOINT_URL_S3"])
        for variable, value in stack.env.items():
            if variable.startswith(("AWS_", "MLFLOW_")):
                patch.setenv(variable, value)
        mlflow.set_tracking_uri(stack.mlflow_uri)
        try:
            yield
        finally:
            mlflow.set_tracking_uri(None)  # type: ignore[arg-type]


def _run(experiment: str, limit: float, name: str | None = None) -> str:
    amounts = pd.DataFrame({"amt": [float(amount) for amount in range(0, 2000, 10)]})
    model = DecisionTreeClassifier(max_depth=1).fit(amounts, (amounts["amt"] > limit).astype(int))
    with mlflow.start_run(experiment_id=experiment) as run:
        mlflow.sklearn.log_model(
            model,
            name="model",
            registered_model_name=name,
            signature=infer_signature(amounts, [0, 1]),
            pip_requirements=["scikit-learn"],
            serialization_format="cloudpickle",
        )
    return str(run.info.run_id)
