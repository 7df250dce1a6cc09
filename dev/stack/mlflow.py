"""Run the MLflow server, with records in PostgreSQL. Clients read and write artifacts on S3 themselves."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from dev.stack import postgres, s3
from dev.stack.home import LOOPBACK, StackHome
from dev.stack.part import Part, http_status


class Mlflow(Part):
    """Run `mlflow server`."""

    name = "mlflow"
    ports = ("mlflow",)
    needs = ("postgres", "s3")

    def command(self, home: StackHome) -> list[str]:
        """Return the command, without the password."""
        return [
            sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(home.port("mlflow")),
            "--workers", "1", "--no-serve-artifacts", "--default-artifact-root", "s3://mlflow/",
        ]  # fmt: skip

    def environment(self, home: StackHome) -> Mapping[str, str]:
        """Return the database's URL and the login for S3."""
        return {
            # Other users of the machine can read a command line, but not the environment.
            "MLFLOW_BACKEND_STORE_URI": postgres.url(home, "mlflow"),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            **s3.S3().exports(home),
        }

    def exports(self, home: StackHome) -> Mapping[str, str]:
        """Return the tracking URI."""
        return {"MLFLOW_TRACKING_URI": f"http://{home.address('mlflow')}", "MLFLOW_DISABLE_TELEMETRY": "true"}

    def check(self, home: StackHome, started: float) -> None:
        """Request the health page. Raises OSError unless it answers 200."""
        status = http_status(f"http://{home.address('mlflow')}/health")
        if status != 200:
            raise OSError(f"the health page answers with status {status}")
