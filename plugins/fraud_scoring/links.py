"""Links that Airflow shows on the pages of task instances."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink
from airflow.sdk.execution_time.xcom import XCom

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class ModelRunLink(BaseOperatorLink):
    """Link to the MLflow run whose model scores this batch."""

    @property
    def name(self) -> str:
        """Return the label of the link."""
        return "MLflow run"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the URL of the MLflow run, or an empty one before `resolve_model` has succeeded."""
        run = XCom.get_one(
            key="return_value", task_id="resolve_model", dag_id=ti_key.dag_id, run_id=ti_key.run_id, map_index=-1
        )
        return (run or {}).get("url") or ""
