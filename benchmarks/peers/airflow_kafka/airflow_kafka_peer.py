"""Run Airflow's Kafka provider as a peer: its two operators, executed in a process as a task executes them."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench
from benchmarks.forest import Forest
from benchmarks.peers.environment import python_of, run_peer

GUARANTEE = (
    "none for the chain: offsets are committed before anything is produced, so a produce task that cannot be repeated "
    "loses (at most once), and one that is repeated doubles"
)


def measure(bench: Bench, forest: Forest, topic: str, output: str, *, form: str, count: int) -> dict[str, Any]:
    """Return payments and seconds of one form, `plain` or `batch`."""
    extra = {
        **bench.kafka,
        "group.id": f"airflow-{uuid.uuid4().hex[:8]}",
        "enable.auto.commit": "false",
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        "compression.type": "lz4",
        "linger.ms": 20,
        "queue.buffering.max.messages": 2_000_000,
    }
    home = bench.home / "peers" / "airflow-home"
    given = {
        "form": form,
        "topic": topic,
        "output": output,
        "forest": forest.file,
        "folder": str(bench.home),
        "count": count,
    }
    found = run_peer(
        bench, python_of(bench, "airflow_kafka"), Path(__file__).with_name("airflow_kafka_job.py"), given, seconds=1800,
        AIRFLOW_HOME=str(home), AIRFLOW_CONN_KAFKA_DEFAULT=json.dumps({"conn_type": "kafka", "extra": extra}),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
    )  # fmt: skip
    return {
        "guarantee": GUARANTEE,
        "payments": found["payments"],
        "per_second": found["payments"] / found["seconds"],
    }
