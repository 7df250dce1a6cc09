"""The steps of the DAG score_payments as operators: contexts, connections and XComs here, the work in include/batch.

Each logs one line of counts and ids and pushes the same as its XCom `counts`. No payment data reaches either.
"""

from __future__ import annotations

from fraud_scoring.operators.drain import DrainOperator, DrainShardOperator
from fraud_scoring.operators.reports import CatchUpOperator, OwedReportsOperator, outbox
from fraud_scoring.operators.score import PredictOperator, PublishOperator, ResolveModelOperator
from fraud_scoring.operators.step import (
    CATCH_UP,
    DRAIN,
    DRAIN_SHARDS,
    EMAIL,
    PREDICT,
    PREDICT_SHARDS,
    PUBLISH,
    PUBLISH_SHARDS,
    REPORTS,
    RESOLVE_MODEL,
)

__all__ = [
    "CATCH_UP",
    "DRAIN",
    "DRAIN_SHARDS",
    "EMAIL",
    "PREDICT",
    "PREDICT_SHARDS",
    "PUBLISH",
    "PUBLISH_SHARDS",
    "REPORTS",
    "RESOLVE_MODEL",
    "CatchUpOperator",
    "DrainOperator",
    "DrainShardOperator",
    "OwedReportsOperator",
    "PredictOperator",
    "PublishOperator",
    "ResolveModelOperator",
    "outbox",
]
