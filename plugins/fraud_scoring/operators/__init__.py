"""The steps of the DAG score_payments as operators: contexts, connections and XComs here, the work in include/batch.

Each logs one line of counts and ids and pushes the same as its XCom `counts`. No payment data reaches either.
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
from fraud_scoring.operators.report_operators import CatchUpOperator, OwedReportsOperator, outbox
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
    "OwedReportsOperator",
    "PlanOperator",
    "PredictOperator",
    "PublishOperator",
    "ResolveModelOperator",
    "outbox",
]
