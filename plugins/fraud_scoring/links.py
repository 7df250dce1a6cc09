"""Buttons on the tasks' pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink, XCom

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class ModelRunLink(BaseOperatorLink):
    """The MLflow run whose model scores this batch."""

    @property
    def name(self) -> str:
        return "MLflow run"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        run = XCom.get_value(ti_key=ti_key._replace(task_id="resolve_model"), key="return_value")
        return (run or {}).get("url") or ""
