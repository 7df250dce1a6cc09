from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dag() -> Any:
    sys.path.insert(0, str(ROOT / "dags"))
    try:
        import score_payments

        return score_payments.score_payments()
    finally:
        sys.path.remove(str(ROOT / "dags"))


def edges(dag: Any) -> dict[str, list[str]]:
    return {task.task_id: sorted(task.downstream_task_ids) for task in dag.tasks}


def test_dag_runs_every_minute_one_run_at_a_time(dag: Any):
    assert dag.dag_id == "score_payments"
    assert dag.timetable.expression == "* * * * *"
    assert dag.catchup is False
    assert dag.max_active_runs == 1
    assert dag.dagrun_timeout == timedelta(minutes=30)
    assert "plan" in dag.doc_md


def test_graph_has_these_edges_and_mapped_tasks(dag: Any):
    assert edges(dag) == {
        "plan": ["drain", "predict", "publish", "reports", "resolve_model"],
        "drain": ["predict"],
        "resolve_model": ["predict"],
        "predict": ["publish"],
        "publish": ["catch_up", "reports"],
        "reports": ["catch_up", "email"],
        "email": [],
        "catch_up": [],
    }
    assert {task.task_id for task in dag.tasks if task.is_mapped} == {"drain", "predict", "publish"}


def test_graph_can_be_sorted(dag: Any):
    """Airflow's grid and graph fail if a task group is both upstream and downstream of a task."""
    assert len(list(dag.task_group.topological_sort())) == len(dag.tasks)


@pytest.mark.parametrize("shards", ["1", "2", "none"])
def test_graph_does_not_depend_on_settings(dag: Any, monkeypatch: pytest.MonkeyPatch, shards: str):
    """In Airflow 3.3.2 a run can hang if its DAG gets other tasks while it runs."""
    monkeypatch.setenv("FRAUD_SHARDS", shards)
    assert edges(sys.modules["score_payments"].score_payments()) == edges(dag)


def test_reports_runs_after_failures_and_catch_up_fails_with_them(dag: Any):
    assert dag.get_task("reports").trigger_rule == "all_done"
    # The run still fails if publish does: this leaf becomes upstream_failed.
    assert dag.get_task("catch_up").trigger_rule == "none_failed_min_one_success"


def test_predict_waits_for_the_model_also_without_payments(dag: Any):
    assert dag.get_task("predict").trigger_rule == "none_failed"


@pytest.mark.parametrize(
    "task_id",
    ["plan", "drain", "resolve_model", "predict", "publish", "reports"],
)
def test_tasks_retry_twice_with_backoff(dag: Any, task_id: str):
    task = dag.get_task(task_id)
    assert task.retries == 2
    assert task.retry_exponential_backoff
    assert task.execution_timeout <= timedelta(minutes=10)
    assert task.owner == "fraud"


def test_publish_times_out_before_the_kafka_transaction(dag: Any):
    from include.kafka.client_config import TRANSACTION_TIMEOUT_MS

    assert dag.get_task("publish").execution_timeout < timedelta(milliseconds=TRANSACTION_TIMEOUT_MS)


def test_only_publish_triggers_the_ledger(dag: Any):
    from fraud_scoring.assets import SCORED_PAYMENTS

    outlets = {task.task_id: task.outlets for task in dag.tasks if task.outlets}
    assert outlets == {"publish": [SCORED_PAYMENTS]}


def test_parts_of_a_mail_are_not_template_fields(dag: Any):
    assert not {"html_content", "subject", "files", "to"} & set(dag.get_task("email").template_fields)


@pytest.mark.parametrize(
    "model",
    [None, "", "latest", "previous", "0123456789abcdef0123456789abcdef", "models:/fraud@champion", "models:/fraud/3"],
)
def test_form_accepts_model(dag: Any, model: str | None):
    jsonschema.validate(model, dag.params.get_param("model").schema)


@pytest.mark.parametrize("model", ["newest", "Latest ", "models:/fraud", "runs:/abc/model", 5])
def test_form_refuses_model(dag: Any, model: object):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(model, dag.params.get_param("model").schema)


def test_parsing_imports_no_slow_module():
    """The file is parsed often, so the tasks import slow modules when they run."""
    code = (
        "import sys, airflow.sdk, airflow.timetables.trigger; before = set(sys.modules); import score_payments; "
        "new = set(sys.modules) - before; "
        "print([m for m in ('pandas', 'mlflow', 'sklearn', 'boto3', 'confluent_kafka', 'pyarrow') if m in new])"
    )
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}:{ROOT / 'dags'}", "PATH": "/usr/bin:/bin", "HOME": "/tmp"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"
