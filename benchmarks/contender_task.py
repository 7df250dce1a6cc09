"""Describe the task of a contender's process: topics, model and partitions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# Does the measured part of a step, and returns what the step reports.
Work = Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Task:
    """What a step is told: `most` payments of a partition; `batch` is its id, where an earlier step has made one."""

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
