"""Train a model on payments, evaluate it, log it to MLflow and register it."""

import os

# MLflow reads the variable once, when it is imported. Training sends MLflow's authors no usage data unless it is set.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
