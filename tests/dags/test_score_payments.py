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


def test_schedule(dag: Any):
    assert dag.dag_id == "score_payments"
    assert dag.timetable.expression == "* * * * *"
    assert dag.catchup is False
    assert dag.max_active_runs == 1
    assert dag.dagrun_timeout == timedelta(minutes=30)
    assert "plan" in dag.doc_md


def test_recipe(dag: Any):
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


def test_the_ui_can_draw_it(dag: Any):
    """Airflow refuses its grid and graph where a task group is before a task and behind it."""
    assert len(list(dag.task_group.topological_sort())) == len(dag.tasks)


@pytest.mark.parametrize("shards", ["1", "2", "none"])
def test_tasks_do_not_depend_on_settings(dag: Any, monkeypatch: pytest.MonkeyPatch, shards: str):
    """A run whose DAG gets other tasks while it is on its way can hang for good in Airflow 3.3.2."""
    monkeypatch.setenv("FRAUD_SHARDS", shards)
    assert edges(sys.modules["score_payments"].score_payments()) == edges(dag)


def test_reports_are_looked_for_whatever_became_of_publish(dag: Any):
    assert dag.get_task("reports").trigger_rule == "all_done"
    # And the run still fails where publish does: this leaf fails with it.
    assert dag.get_task("catch_up").trigger_rule == "none_failed_min_one_success"


def test_what_follows_waits_for_the_model_also_where_no_payments_wait(dag: Any):
    assert dag.get_task("predict").trigger_rule == "none_failed"


@pytest.mark.parametrize(
    "task_id",
    ["plan", "drain", "resolve_model", "predict", "publish", "reports"],
)
def test_retries_back_off_and_end(dag: Any, task_id: str):
    task = dag.get_task(task_id)
    assert task.retries == 2
    assert task.retry_exponential_backoff
    assert task.execution_timeout <= timedelta(minutes=10)
    assert task.owner == "fraud"


def test_publish_ends_before_the_broker_would_end_its_kafka_transaction(dag: Any):
    from include.kafka.client_config import TRANSACTION_TIMEOUT_MS

    assert dag.get_task("publish").execution_timeout < timedelta(milliseconds=TRANSACTION_TIMEOUT_MS)


def test_publish_wakes_the_ledger_and_nothing_else_does(dag: Any):
    from fraud_scoring.assets import SCORED_PAYMENTS

    outlets = {task.task_id: task.outlets for task in dag.tasks if task.outlets}
    assert outlets == {"publish": [SCORED_PAYMENTS]}


def test_nothing_of_a_mail_is_a_template_field(dag: Any):
    assert not {"html_content", "subject", "files", "to"} & set(dag.get_task("email").template_fields)


@pytest.mark.parametrize(
    "model",
    [None, "", "latest", "previous", "0123456789abcdef0123456789abcdef", "models:/fraud@champion", "models:/fraud/3"],
)
def test_form_takes_every_way_to_name_a_model(dag: Any, model: str | None):
    jsonschema.validate(model, dag.params.get_param("model").schema)


@pytest.mark.parametrize("model", ["newest", "Latest ", "models:/fraud", "runs:/abc/model", 5])
def test_form_refuses_others(dag: Any, model: object):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(model, dag.params.get_param("model").schema)


def test_parsing_loads_nothing_heavy():
    """The file is parsed again and again; what is slow to import is imported by the tasks that need it."""
    code = (
        "import sys, airflow.sdk, airflow.timetables.trigger; before = set(sys.modules); import score_payments; "
        "new = set(sys.modules) - before; "
        "print([m for m in ('pandas', 'mlflow', 'sklearn', 'boto3', 'confluent_kafka', 'pyarrow') if m in new])"
    )
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}:{ROOT / 'dags'}", "PATH": "/usr/bin:/bin", "HOME": "/tmp"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"
