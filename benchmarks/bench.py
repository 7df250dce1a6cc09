"""Give benchmarks a folder with its own stack, console output, and checks of what they need."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dev.stack import Options, Stack
from dev.stack.part import ROOT
from include.kafka.client_config import read_client_config

EXPERIMENT = "benchmark"
INPUT, OUTPUT, DEAD_LETTERS = "benchmark_payments", "benchmark_scored", "benchmark_dead_letters"
SERVICES = ("kafka", "mlflow", "ledger")
_BUNDLE = "airflow.dag_processing.bundles.local.LocalDagBundle"
# The stack sets Airflow's own variables; this file in AIRFLOW_HOME sets others.
_AIRFLOW_CFG = f"""\
[dag_processor]
dag_bundle_config_list = [
    {{"name": "dags-folder", "classpath": "{_BUNDLE}", "kwargs": {{}}}},
    {{"name": "benchmarks", "classpath": "{_BUNDLE}", "kwargs": {{"path": "{ROOT / "benchmarks" / "dags"}"}}}}]
"""


class BenchmarkError(Exception):
    """Report in one line why a benchmark cannot run, or why its figures are void."""


@dataclass
class Bench:
    """Hold the folder, the stack and the console of the benchmarks."""

    home: Path
    celery: bool = False
    """Its stack is of that kind, in a folder of its own."""
    _up: str = ""
    _began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.home = self.home.expanduser().absolute()
        self.home.mkdir(parents=True, exist_ok=True)
        self.stack = Stack(self.home / ("celery" if self.celery else "stack"), Options(celery=self.celery))
        self._settings = self.home / "settings.env"

    def say(self, text: str) -> None:
        """Print a line of progress."""
        sys.stderr.write(f"{time.monotonic() - self._began:7.1f} s  {text}\n")
        sys.stderr.flush()

    def need_disk(self, gigabytes: float) -> None:
        """Raise BenchmarkError unless so many GB are free."""
        free = shutil.disk_usage(self.home).free / 1e9
        if free < gigabytes:
            raise BenchmarkError(f"{free:.1f} GB free at {self.home}, {gigabytes:g} GB are needed: give another --home")

    @contextmanager
    def running(self, *, airflow: bool = False, shards: int = 1) -> Iterator[None]:
        """Run the stack, with Airflow or without, until the outermost block of this kind ends."""
        if self._up:
            yield
            return
        self._prepare(airflow, shards)
        self.say(f"starting the stack in {self.stack.home.path}{', with Airflow' if airflow else ''}")
        try:
            # Without the part `history`: it imports Airflow while something is measured.
            if not self.stack.up((*SERVICES, "mail", "airflow") if airflow else SERVICES, leave=False):
                raise BenchmarkError(f"a stack is up already in {self.stack.home.path}: `python -m dev.stack down` it")
            self._up = "all" if airflow else "services"
            yield
        finally:
            self._up = ""
            self.stack.down()
            self.say("the stack is down")

    def choose_shards(self, number: int) -> None:
        """Set the number of shards, from the next start of the process that runs tasks."""
        self._settings.write_text(f"FRAUD_SHARDS={number}\n")

    def _prepare(self, airflow: bool, shards: int) -> None:
        os.environ.update(
            FRAUD_STACK_ENV_FILE=str(self._settings),
            FRAUD_INPUT_TOPIC=INPUT,
            FRAUD_OUTPUT_TOPIC=OUTPUT,
            FRAUD_DEAD_LETTER_TOPIC=DEAD_LETTERS,
            FRAUD_EXPERIMENT=EXPERIMENT,
        )
        os.environ.pop("FRAUD_SHARDS", None)
        self.choose_shards(shards)
        if not airflow:
            return
        folder = self.stack.home.path / "airflow"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "airflow.cfg").write_text(_AIRFLOW_CFG)
        # In its own process: Airflow reads its configuration when it is imported.
        command = [sys.executable, "-m", "benchmarks.shape", str(folder / "benchmark_shape.json")]
        given = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        subprocess.run(command, cwd=ROOT, env=given | {"AIRFLOW_HOME": str(folder)}, check=True, capture_output=True)

    @property
    def env(self) -> dict[str, str]:
        """Return the variables for processes that work with the stack."""
        aws = {"AWS_EC2_METADATA_DISABLED": "true", "PYTHONPATH": str(ROOT)}
        return {**os.environ, **self.stack.env, **aws}

    @property
    def kafka(self) -> dict[str, Any]:
        """Return the settings of Kafka clients."""
        return read_client_config({"KAFKA_BOOTSTRAP_SERVERS": self.stack.env["KAFKA_BOOTSTRAP_SERVERS"]})


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables of this process, and restore them afterwards."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
