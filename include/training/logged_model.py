"""Log a trained model to MLflow and register it: as a logged model, or for MLflow 2 among its run's artifacts."""

from __future__ import annotations

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from include.models.candidates import HISTORY_TAG
from include.models.mlflow_client import MODEL_NAME
from include.models.mlflow_server import MlflowServer


def log_model(pipeline: Any, registered_name: str, **options: Any) -> str:
    """Log the pipeline to the active run, register it, and return the registered version.

    `options` are those of `mlflow.sklearn.save_model`. Raise RuntimeError if no run is active.
    """
    client, run = mlflow.MlflowClient(), mlflow.active_run()
    if run is None:
        raise RuntimeError("no MLflow run is active")
    if MlflowServer(client).rejection_of_search(run.info.experiment_id) is None:
        model = mlflow.sklearn.log_model(pipeline, name=MODEL_NAME, registered_model_name=registered_name, **options)
        return str(model.registered_model_version)
    _log_among_artifacts(client, run.info.run_id, pipeline, options)
    source = f"{run.info.artifact_uri}/{MODEL_NAME}"
    return _register(client, registered_name, source, run.info.run_id)


def _log_among_artifacts(client: mlflow.MlflowClient, run_id: str, pipeline: Any, options: dict[str, Any]) -> None:
    """Log the model as clients of MLflow 2 did: they note it in a tag of its run, by which it is found."""
    model = Model(artifact_path=MODEL_NAME, run_id=run_id)
    with tempfile.TemporaryDirectory() as folder:
        mlflow.sklearn.save_model(pipeline, str(Path(folder, MODEL_NAME)), mlflow_model=model, **options)
        client.log_artifacts(run_id, str(Path(folder, MODEL_NAME)), MODEL_NAME)
    entry = {
        "run_id": run_id,
        "artifact_path": MODEL_NAME,
        "utc_time_created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f"),
        "flavors": {flavor: {} for flavor in model.flavors},
    }
    client.set_tag(run_id, HISTORY_TAG, json.dumps([entry]))


def _register(client: mlflow.MlflowClient, name: str, source: str, run_id: str) -> str:
    """Register without `mlflow.register_model`, which in 3.17 requests the logged model first."""
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return str(client.create_model_version(name, source, run_id).version)
