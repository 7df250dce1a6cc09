"""Training: payments in, a judged and registered model in MLflow out."""

import os

# MLflow reads it once, when it is imported. Training tells nobody, unless somebody says so.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
