from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

DAGS = Path(__file__).parents[2] / "dags"


def dag_of(name: str) -> Any:
    sys.path.insert(0, str(DAGS))
    try:
        return getattr(import_module(name), name)()
    finally:
        sys.path.remove(str(DAGS))


@pytest.mark.parametrize("name", sorted(path.stem for path in DAGS.glob("*.py")))
def test_dag_allows_every_run_type_except_backfill(name: str):
    dag = dag_of(name)
    assert dag.dag_id == name
    assert dag.allowed_run_types == {
        "scheduled",
        "manual",
        "operator_triggered",
        "asset_triggered",
        "asset_materialization",
    }
    # Airflow's error gives no advice, so the DAG's page does.
    assert "backfill" in dag.doc_md
