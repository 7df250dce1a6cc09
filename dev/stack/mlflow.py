"""The MLflow server: its records on PostgreSQL; clients read and write artifacts on S3 themselves."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from dev.stack import postgres, s3
from dev.stack.home import LOOPBACK, Home
from dev.stack.part import Part, http_status


class Mlflow(Part):
    name = "mlflow"
    ports = ("mlflow",)
    needs = ("postgres", "s3")

    def command(self, home: Home) -> list[str]:
        return [
            sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(home.port("mlflow")),
            "--workers", "1", "--no-serve-artifacts", "--default-artifact-root", "s3://mlflow/",
        ]  # fmt: skip

    def environment(self, home: Home) -> Mapping[str, str]:
        return {
            # By the environment: a command line would show the password to every user of the machine.
            "MLFLOW_BACKEND_STORE_URI": postgres.url(home, "mlflow"),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            **s3.S3().exports(home),
        }

    def exports(self, home: Home) -> Mapping[str, str]:
        return {"MLFLOW_TRACKING_URI": f"http://{home.address('mlflow')}", "MLFLOW_DISABLE_TELEMETRY": "true"}

    def check(self, home: Home, started: float) -> None:
        status = http_status(f"http://{home.address('mlflow')}/health")
        if status != 200:
            raise OSError(f"answers {status}")
