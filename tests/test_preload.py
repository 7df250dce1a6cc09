from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from include import preload
from tests.support.live_stack import LiveStack

ROOT = Path(__file__).parents[1]

# Forked tasks use threads of a forest, Parquet and a Kafka client. The exit code is 0 if all of it works.
PRELOAD_AND_FORK = """
import os, signal, sys
sys.argv = ["airflow", "scheduler", "--skip-serve-logs"]
from include.preload import MODULES, preload
preload()
missing = [name for name in MODULES if name not in sys.modules]
assert not missing, missing
import threading
assert threading.active_count() == 1, threading.enumerate()
for _ in range(3):
    if (pid := os.fork()) == 0:
        signal.alarm(60)
        import io
        import numpy as np, pyarrow as pa, pyarrow.parquet as pq
        from confluent_kafka import Producer
        from sklearn.ensemble import RandomForestClassifier
        x = np.random.default_rng(1).random((4000, 8))
        forest = RandomForestClassifier(20, n_jobs=2).fit(x, x[:, 0] > 0.5)
        assert (forest.predict(x) == (x[:, 0] > 0.5)).mean() > 0.9
        assert np.isfinite(x.T @ x).all()
        file = io.BytesIO()
        pq.write_table(pa.table({"x": x[:, 0]}), file, compression="lz4")
        assert pq.read_table(file).num_rows == 4000
        producer = Producer({"bootstrap.servers": os.environ["SERVERS"]})
        delivered = []
        producer.produce(os.environ["TOPIC"], b"x", on_delivery=lambda error, message: delivered.append(error))
        assert producer.flush(30) == 0 and delivered == [None], delivered
        # The task inherits boto3's data files for S3, but neither credentials nor settings.
        import boto3, botocore.loaders
        read, whole = [], botocore.loaders.JSONFileLoader.load_file
        botocore.loaders.JSONFileLoader.load_file = lambda self, path: read.append(path) or whole(self, path)
        os.environ |= {"AWS_ACCESS_KEY_ID": "mine", "AWS_SECRET_ACCESS_KEY": "x", "AWS_ENDPOINT_URL_S3": "http://here:1"}
        client = boto3.client("s3", region_name="eu-central-1")
        assert boto3.DEFAULT_SESSION.get_credentials().access_key == "mine"
        assert client.meta.endpoint_url == "http://here:1"
        assert not [path for path in read if path.endswith(("service-2", "endpoint-rule-set-1", "endpoints"))], read
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
"""


def test_forked_tasks_can_use_preloaded_libraries(services: LiveStack, topics, tmp_path: Path):
    environment = {
        "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}",
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "AIRFLOW_HOME": str(tmp_path),
        "SERVERS": services.bootstrap_servers,
        "TOPIC": topics(),
    }
    done = subprocess.run(
        [sys.executable, "-c", PRELOAD_AND_FORK], env=environment, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr
    assert "cannot be preloaded" not in done.stderr


@pytest.mark.parametrize(
    ("words", "forks"),
    [
        (["scheduler"], True),
        (["scheduler", "--skip-serve-logs"], True),
        (["celery", "worker", "--concurrency", "4"], True),
        (["api-server"], False),
        (["dag-processor"], False),
        (["triggerer"], False),
        (["celery", "flower"], False),
        (["tasks", "test", "score_payments", "plan"], False),
        (["dags", "trigger", "scheduler"], False),
        ([], False),
    ],
)
def test_only_processes_that_fork_tasks_preload(
    words: list[str], forks: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(sys, "argv", ["/opt/venv/bin/airflow", *words])
    monkeypatch.setattr(preload, "MODULES", ("no_such_module",))
    preload.preload()
    assert ("no_such_module cannot be preloaded" in caplog.text) is forks


def test_failed_imports_are_logged_and_stop_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
):
    (tmp_path / "broken_on_import.py").write_text("1 / 0")
    (tmp_path / "imported_all_the_same.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "argv", ["airflow", "scheduler"])
    monkeypatch.setattr(preload, "MODULES", ("broken_on_import", "imported_all_the_same"))
    monkeypatch.setitem(sys.modules, "botocore.loaders", None)
    preload.preload()
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "imported_all_the_same" in sys.modules
