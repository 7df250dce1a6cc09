"""Mails operators of what is wrong with the topic or the pace, once an incident: `include/batch/alarms.py` finds it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowTaskTimeout
from airflow.sdk.execution_time.timeout import TimeoutPosix

from fraud_scoring.incidents import IncidentNotifier, map_index
from fraud_scoring.kept_incidents import KeptIncidents
from include.batch.alarms import ADVICE, Advice
from include.report.incident import Failure, Incident
from include.settings import Settings

log = logging.getLogger(__name__)

# The XCom of the task that fixes the batch: a list of {"kind", "sentence"}, empty where there is nothing to tell.
ALARMS = "alarms"
# Well below [core] task_success_overtime (20), at which Airflow kills a task's process that still runs callbacks.
_ALARM_SECONDS = 10


def tell_alarms(context: Context) -> None:
    """For `on_success_callback` of the task that fixes the batch: mails what its XCom `alarms` holds.

    Each kind is an incident that ends with the first batch without it; events, which no later batch finds again, only
    once all of them were mailed. A task that fails never gets here, so its run
    ends none. Airflow 3.3.2 records a task's success before it calls this (task_runner.run, then finalize): the tasks
    and runs that follow do not wait, and nothing that happens here can fail the task.
    """
    ti = context["ti"]
    alarms = ti.xcom_pull(task_ids=ti.task_id, key=ALARMS)
    if alarms is None:
        log.warning("%s has left no XCom %s: nothing is known of alarms", ti.task_id, ALARMS)
        return
    kept = KeptIncidents(Settings.usable())
    sentences = {alarm["kind"]: alarm["sentence"] for alarm in alarms}
    try:
        with TimeoutPosix(_ALARM_SECONDS, f"alarms were not told within {_ALARM_SECONDS} s"):  # type: ignore[no-untyped-call]
            for kind, advice in ADVICE.items():
                lasting = kept.lasting(kind)
                if kind in sentences:
                    _tell(context, kind, sentences[kind], advice, None)
                elif advice.is_event and lasting is not None and lasting.untold:
                    _tell(context, kind, "", advice, lasting)
                elif kept.over(kind, map_index(ti)):
                    log.info("%s is over", kind)
    except AirflowTaskTimeout as error:
        # Not noted as told: the next run tries again.
        log.error("%s; does the mail server hang?", error)


def _tell(context: Context, kind: str, sentence: str, advice: Advice, rest_of: Incident | None) -> None:
    ti, now = context["ti"], datetime.now(UTC)
    alarm = Failure(kind, kind, sentence, ti.dag_id, ti.run_id, ti.log_url, now, ti.try_number, map_index(ti))
    try:
        if rest_of is None:
            IncidentNotifier().tell(context, alarm, advice)
        else:
            IncidentNotifier().tell_rest(context, alarm, rest_of, advice)
    except Exception as error:
        # SMTP fails with errors of several libraries; the other alarms are still to be told.
        log.error("operators could not be told of %s, the next run tries again: %s", kind, type(error).__name__)
