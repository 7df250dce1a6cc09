"""Operators for the tasks of the DAG score_payments: they handle contexts, connections and XComs.

`include/batch` does the work. Each operator logs one line of counts and ids, and pushes the same as its XCom `counts`.
Neither contains payment data.
"""

from __future__ import annotations

from fraud_scoring.operators.batch_operator import (
    CATCH_UP,
    DRAIN,
    EMAIL,
    PLAN,
    PREDICT,
    PUBLISH,
    REPORTS,
    RESOLVE_MODEL,
    SHARD_NAME,
)
from fraud_scoring.operators.plan_operator import PlanOperator
from fraud_scoring.operators.report_operators import CatchUpOperator, PendingReportsOperator, outbox
from fraud_scoring.operators.score_operators import (
    DrainOperator,
    PredictOperator,
    PublishOperator,
    ResolveModelOperator,
)

__all__ = [
    "CATCH_UP",
    "DRAIN",
    "EMAIL",
    "PLAN",
    "PREDICT",
    "PUBLISH",
    "REPORTS",
    "RESOLVE_MODEL",
    "SHARD_NAME",
    "CatchUpOperator",
    "DrainOperator",
    "PendingReportsOperator",
    "PlanOperator",
    "PredictOperator",
    "PublishOperator",
    "ResolveModelOperator",
    "outbox",
]
