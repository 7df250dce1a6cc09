"""Score payments from topic to topic with Spark Structured Streaming on `local[2]`: `spark_job.py '{…}'`.

It runs in the peer's own environment, imports nothing of the project, and prints the micro-batches as JSON.
Spark's Kafka sink delivers at least once: it writes a micro-batch again that is repeated after a failure.

Tuned for throughput on two cores, by a profile of its Python side; its switches were not measured one by one.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

# In this folder. Spark's workers keep an imported module between tasks, unlike what Spark pickles.
import score
from pyspark.sql import SparkSession

TYPES = "key binary, value binary, headers array<struct<key: string, value: binary>>"


def main(given: dict[str, Any]) -> dict[str, Any]:
    """Run one query, and return its micro-batches."""
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    session = (
        SparkSession.builder.master("local[2]")
        .appName("benchmark")
        .config("spark.jars", ",".join(given["jars"]))
        .config("spark.driver.memory", "2g")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", "20000")
        .config("spark.sql.execution.arrow.maxBytesPerBatch", str(256 * 1024**2))
        .config("spark.python.worker.reuse", "true")
        .config("spark.driver.extraJavaOptions", "-XX:+UseParallelGC")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("ERROR")
    source = (
        session.readStream.format("kafka")
        .option("kafka.bootstrap.servers", given["servers"])
        .option("subscribe", given["topic"])
        .option("startingOffsets", "earliest")
        .option("maxOffsetsPerTrigger", str(given["at_once"]))
        .option("kafka.isolation.level", "read_committed")
        .option("kafka.max.poll.records", "20000")
        .option("kafka.fetch.max.bytes", str(64 * 1024**2))
        .option("kafka.max.partition.fetch.bytes", str(16 * 1024**2))
        .option("kafka.receive.buffer.bytes", str(4 * 1024**2))
        .load()
        .select("key", "value", "partition", "offset")
    )
    session.sparkContext.addPyFile(score.__file__)

    def scored(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import score

        return score.scored(batches, given["forest"], given["topic"], given["run_id"], given["batch_id"])

    with tempfile.TemporaryDirectory() as checkpoint:
        query = (
            source.mapInArrow(scored, TYPES)
            .writeStream.format("kafka")
            .option("kafka.bootstrap.servers", given["servers"])
            .option("topic", given["output"])
            .option("kafka.compression.type", "lz4")
            .option("kafka.linger.ms", "20")
            .option("kafka.batch.size", str(1024**2))
            .option("kafka.buffer.memory", str(128 * 1024**2))
            .option("checkpointLocation", checkpoint)
            # All that waits, in micro-batches of maxOffsetsPerTrigger, and then it ends.
            .trigger(availableNow=True)
            .start()
        )
        began = time.monotonic()
        query.awaitTermination()
        seconds = time.monotonic() - began
        found = [
            {"payments": one["numInputRows"], "seconds": one["durationMs"]["triggerExecution"] / 1000}
            for one in (json.loads(progress.json) for progress in query.recentProgress)
            if one["numInputRows"]
        ]
    session.stop()
    return {"seconds": seconds, "batches": found}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
