"""Describe the task of a contender's process: topics, model and partitions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# Runs the measured part of a step, and returns the report.
Work = Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Task:
    """Describe what a process works on.

    `most` is the largest number of payments of a partition. `batch` is the id of the batch that an earlier step made.
    """

    kafka: dict[str, Any]
    topic: str
    output: str
    group: str
    staging: str
    cache: str
    run: dict[str, Any]
    forest: str
    partitions: tuple[int, ...]
    most: int
    shard: int = 0
    shards: int = 1
    batch: str = ""
