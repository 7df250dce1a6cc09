from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from dev.stack.part import ROOT
from tests.support.live_stack import LiveStack

HEAVY = ("imblearn", "mlflow", "pandas", "sklearn")
RUN_PLAN = f"""
import sys
sys.argv = ["airflow", "tasks", "test", "score_payments", "plan"]
from airflow.__main__ import main
main()
print("imported:", [name for name in {HEAVY} if name in sys.modules], "include.batch.planner" in sys.modules)
"""


def test_idle_run_imports_no_heavy_module(stack: LiveStack, topics: Callable[..., str], tmp_path: Path):
    """Airflow runs the task in a process that has preloaded nothing."""
    topic = topics(3)
    environment = {
        **os.environ,
        **stack.env,
        "PYTHONPATH": f"{tmp_path}:{ROOT}",
        "FRAUD_INPUT_TOPIC": topic,
        "FRAUD_GROUP": topic,
        "FRAUD_STAGING_URL": str(tmp_path / "staging"),
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN_PLAN], env=environment, capture_output=True, text=True, timeout=180
    )
    output = done.stdout + done.stderr
    assert f"{topic} nothing: offsets 0" in output
    assert done.stdout.strip().splitlines()[-1] == "imported: [] True", output
