"""Run Spark Structured Streaming as a peer, with its Java and its Kafka connector."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jgo

from benchmarks.bench import Bench, BenchmarkError
from benchmarks.forest import Forest
from benchmarks.peers.environment import python_of, run_peer

GUARANTEE = "at least once: what its Kafka sink has written of a micro-batch that fails, it writes again"
VOID_BELOW = 34_000
"""Payments a second, once seen on a machine of two cores: far below, the tuning or the machine is at fault."""
_JAVAS = range(17, 26)
# What pyspark brings, it must not get twice.
_BROUGHT = ("hadoop-", "scala-library", "scala-parallel", "slf4j-", "lz4-", "snappy-", "jsr305")


def measure(bench: Bench, forest: Forest, topic: str, output: str, *, at_once: int) -> dict[str, Any]:
    """Return the rates of the warm micro-batches, each of `at_once` payments."""
    java = _java_home()
    python = python_of(bench, "spark")
    given = {
        "servers": bench.kafka["bootstrap.servers"],
        "topic": topic,
        "output": output,
        "forest": forest.file,
        "run_id": forest.run_id,
        "batch_id": "spark",
        "jars": _connector(bench),
        "at_once": at_once,
    }
    report = run_peer(bench, python, Path(__file__).with_name("spark_job.py"), given, seconds=1800, JAVA_HOME=str(java))
    batches = report["batches"]
    # The first ones start Python workers, load forests and let the JVM compile what is hot.
    warm = batches[len(batches) // 3 :]
    rates = [one["payments"] / one["seconds"] for one in warm]
    return {
        "guarantee": GUARANTEE,
        "per_second": sum(one["payments"] for one in warm) / sum(one["seconds"] for one in warm),
        "least": min(rates),
        "most": max(rates),
        "cold_per_second": sum(one["payments"] for one in batches) / report["seconds"],
        "batches": batches,
    }


def _java_home() -> Path:
    """Return JAVA_HOME, or the home of the `java` on the PATH. Raises BenchmarkError if Spark cannot run on it."""
    named = os.environ.get("JAVA_HOME")
    found = Path(named) / "bin" / "java" if named else Path(shutil.which("java") or "")
    mend = "install a Java from 17 to 25 (for instance openjdk-17-jre-headless), or name one by JAVA_HOME"
    if not found.is_file():
        raise BenchmarkError(f"Spark needs a Java, and {'JAVA_HOME names none' if named else 'there is none'}: {mend}")
    said = subprocess.run([str(found), "-version"], capture_output=True, text=True, timeout=60).stderr
    version = re.search(r'version "(\d+)', said)
    if not version or int(version[1]) not in _JAVAS:
        raise BenchmarkError(f"{found} is Java {version[1] if version else 'of an unknown version'}: {mend}")
    return found.resolve().parents[1]


def _connector(bench: Bench) -> list[str]:
    """Return the jars of Spark's Kafka connector, of the pinned version."""
    text = (Path(__file__).with_name("requirements.txt")).read_text()
    version = re.search(r"^pyspark==([\d.]+)", text, re.MULTILINE)
    if version is None:
        raise BenchmarkError("benchmarks/peers/spark/requirements.txt pins no pyspark")
    bench.say(f"looking for Spark's Kafka connector {version[1]} (downloaded once)")
    folder = Path(jgo.build(f"org.apache.spark:spark-sql-kafka-0-10_2.13:{version[1]}").path)
    jars = [path for kind in ("jars", "modules") for path in sorted((folder / kind).glob("*.jar"))]
    return [str(path) for path in jars if not path.name.startswith(_BROUGHT)]
