"""Score payments from topic to topic with the operators of Airflow's Kafka provider: `airflow_kafka_job.py '{…}'`.

It runs in the peer's own environment, imports nothing of the project, and prints seconds and count as JSON.
The form `plain` does what the operators' documentation shows: a function for each message, and a producer that waits
for each. The form `batch` is as fast as their interface allows: the model gets whole lists, and the producer does not
wait.
Between the two operators results lie in a file, as between two tasks. The consumer's offsets are committed before the
producer begins, and nothing ties the two together.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import orjson
import pandas as pd
from airflow.providers.apache.kafka.operators.consume import ConsumeFromTopicOperator
from airflow.providers.apache.kafka.operators.produce import ProduceToTopicOperator


class Between:
    """Score payments into a file for the second task."""

    def __init__(self, forest: str, folder: str) -> None:
        self.pipeline = joblib.load(forest)
        self.names = list(self.pipeline.feature_names_in_)
        self.file = Path(folder) / "airflow_kafka.jsonl"
        self.output = self.file.open("wb")
        self.count = 0

    def one(self, message: Any) -> None:
        """Score one message."""
        self.many([message])

    def many(self, messages: list[Any]) -> None:
        """Score a list of messages."""
        values = [orjson.loads(message.value()) for message in messages]
        payments = [dict(zip(value["columns"], value["data"][0], strict=True)) for value in values]
        matrix = np.array([[payment[name] for name in self.names] for payment in payments], dtype=np.float64)
        labels = self.pipeline.predict(pd.DataFrame(matrix, columns=self.names))
        for message, payment, label in zip(messages, payments, labels.tolist(), strict=True):
            payment |= {"is_fraud": int(label), "fraud_confirmed": None}
            self.output.write(message.key() + b"\t" + orjson.dumps([payment]) + b"\n")
        self.count += len(messages)

    def scored(self) -> Any:
        """Yield key and value of each scored payment."""
        self.output.close()
        with self.file.open("rb") as lines:
            for line in lines:
                key, _, value = line.rstrip(b"\n").partition(b"\t")
                yield key, value


def main(given: dict[str, Any]) -> dict[str, Any]:
    """Run the given form, and return seconds and count."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    plain = given["form"] == "plain"
    between = Between(given["forest"], given["folder"])
    between.pipeline.steps[-1][1].n_jobs = 1 if plain else -1
    consume = ConsumeFromTopicOperator(
        task_id="consume",
        topics=[given["topic"]],
        **({"apply_function": between.one} if plain else {"apply_function_batch": between.many}),
        max_messages=given["count"],
        max_batch_size=min(given["count"], 1_000 if plain else 50_000),
        # The default, 60, would be waited out whenever fewer come than were asked for.
        poll_timeout=5,
    )
    produce = ProduceToTopicOperator(
        task_id="produce", topic=given["output"], producer_function=between.scored, synchronous=plain
    )
    began = time.monotonic()
    consume.execute({})
    produce.execute({})
    seconds = time.monotonic() - began
    between.file.unlink()
    return {"seconds": seconds, "payments": between.count}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
