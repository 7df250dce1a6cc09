"""The benchmarks start, stand apart from what ships, and their empty DAG has the shape of the real one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.tables import tables

ROOT = Path(__file__).parents[2]


def run(*words: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_else_imports_them():
    files = [path for folder in ("dags", "plugins", "include", "dev") for path in (ROOT / folder).rglob("*.py")]
    assert files
    assert [str(path) for path in files if re.search(r"^\s*(from|import) benchmarks\b", path.read_text(), re.M)] == []


def test_peers_unpickle_the_forest_with_the_versions_that_pickled_it():
    ours = (ROOT / "requirements.txt").read_text()
    for peer in ("spark", "airflow_kafka"):
        theirs = (ROOT / "benchmarks" / "peers" / peer / "requirements.txt").read_text()
        for package in ("scikit-learn", "imbalanced-learn"):
            (pin,) = re.findall(rf"^{package}==\S+", ours, re.M)
            assert f"\n{pin} " in f"\n{theirs}"


def test_help_names_every_benchmark():
    shown = " ".join(run("-m", "benchmarks", "--help").split())
    assert "chain, ledger, runs, idle, age, backlog, shards, peers, sampling" in shown


def test_results_are_shown_without_a_run(tmp_path: Path):
    result = {"minutes": 1, "shards": 1, "at": "2026-01-01", "machine": {}, "by_rate": {}}
    result["by_rate"] = {"5000": {"payments": 300_000, "median": 31.2, "p99": 62.4, "most": 63.0, "percentiles": []}}
    (tmp_path / "results.json").write_text(json.dumps({"age": result}))
    shown = run("-m", "benchmarks", "--home", str(tmp_path), "--no-run")
    assert re.search(r"5,000.*300,000.*31\.2.*62\.4.*63\.0", shown)


def test_a_void_comparison_says_so():
    spark = {"per_second": 10_000.0, "sittings": [10_000.0], "guarantee": "at least once"}
    result = {"payments": 1, "product": {"1": [40_000.0]}, "spark": spark, "operators": {}, "void": True}
    (table,) = tables({"peers": result})
    assert table.rows[0][2] == "4.00"
    assert "Void" in table.note


@pytest.mark.long
def test_the_empty_dag_has_the_shape_of_the_real_one(tmp_path: Path):
    home = {"AIRFLOW_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    run("-m", "benchmarks.shape", str(tmp_path / "benchmark_shape.json"), **home)
    code = (
        "import json; from benchmarks.shape import ROOT, load, shape;"
        "print(json.dumps(shape(load(ROOT / 'benchmarks' / 'dags' / 'empty_shape.py', 'empty_shape'))))"
    )
    empty = json.loads(run("-c", code, **home).splitlines()[-1])
    real = json.loads((tmp_path / "benchmark_shape.json").read_text())
    assert {"drain", "predict", "publish"} <= {task["task_id"] for task in real}
    assert empty == real
