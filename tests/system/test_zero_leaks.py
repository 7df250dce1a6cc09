"""The last of these modules: Airflow keeps no data of all the payments that were scored."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.support.leaks import Leaks
from tests.support.live_stack import LiveStack
from tests.support.mail import Inbox
from tests.support.payments import FRAUD_FOR_BOTH, payment
from tests.support.pipeline import DAG, Outputs, Pipeline, reported, reports, trans_nums
from tests.support.topics import send


def test_logs_and_metadata_database_hold_no_personal_data(
    pipeline: Pipeline, outputs: Outputs, inbox: Inbox, stack: LiveStack
) -> None:
    pipeline.settle()
    templated = payment(FRAUD_FOR_BOTH, merchant="{{ conn.smtp_default.password }}{{ 7 * 7 }}")
    unscorable = payment(1e300)
    sent = pipeline.send([templated, unscorable])
    broken = [payment(1.0), payment(2.0)]
    pipeline.secrets.update(*(one.secrets for one in broken))
    sources = send(stack.bootstrap_servers, "topic_1", [(one.key, one.message[:-9]) for one in broken])
    run_id = pipeline.finish(pipeline.api.trigger(DAG))

    outputs.scored(sent[:1])
    dead = outputs.dead_letters([sent[1].source, *sources])
    assert [message.value for message in dead] == [unscorable.message, *(one.message[:-9] for one in broken)]
    assert reported(reports(inbox)) == trans_nums(sent[:1])

    leaks = Leaks(stack)
    tables = ("xcom", "rendered_task_instance_fields", "task_instance", "log", "dag_run")
    assert len(pipeline.secrets) >= 16
    assert leaks.find(pipeline.secrets) == set()
    assert {f"airflow.{table}" for table in tables} <= leaks.looked_at
    assert len([name for name in leaks.looked_at if run_id in name]) >= 6  # the tasks' logs


@pytest.mark.parametrize("column", ["cc_num", "street"])
def test_search_finds_planted_values(pipeline: Pipeline, stack: LiveStack, column: str) -> None:
    text = str(payment(1.0).values[column])
    leaks = Leaks(stack)
    assert leaks.find([text]) == set()

    log = stack.home / "airflow" / "logs" / "planted.log"
    log.write_text(f'{{"event": "scoring {text}"}}')
    run_id = pipeline.api.runs(DAG, limit=1)[0]["dag_run_id"]
    path = f"dags/{DAG}/dagRuns/{quote(run_id, safe='')}"
    pipeline.api.request("POST", f"{path}/taskInstances/plan/xcomEntries", json={"key": "planted", "value": [text]})
    try:
        assert leaks.find([text]) >= {str(log), "airflow.xcom"}
    finally:
        log.unlink()
        pipeline.api.request("DELETE", f"{path}/taskInstances/plan/xcomEntries/planted")
    # The audit log keeps what was posted.
    assert leaks.find([text]) <= {"airflow.log"}
