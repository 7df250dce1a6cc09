"""Buttons on the tasks' pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink
from airflow.sdk.execution_time.xcom import XCom

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class ModelRunLink(BaseOperatorLink):
    """The MLflow run whose model scores this batch."""

    @property
    def name(self) -> str:
        return "MLflow run"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        run = XCom.get_one(
            key="return_value", task_id="resolve_model", dag_id=ti_key.dag_id, run_id=ti_key.run_id, map_index=-1
        )
        return (run or {}).get("url") or ""
