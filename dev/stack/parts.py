"""The parts of the stack, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Iterable

from dev.stack.airflow import ApiServer, DagProcessor, Scheduler, Triggerer
from dev.stack.errors import StackError
from dev.stack.history import History
from dev.stack.home import Options
from dev.stack.kafka import Kafka
from dev.stack.mail import Mail
from dev.stack.mlflow import Mlflow
from dev.stack.part import Part
from dev.stack.postgres import Postgres
from dev.stack.s3 import S3

PARTS: dict[str, Part] = {
    part.name: part
    for part in (
        Postgres(),
        S3(),
        Kafka(),
        Mail(),
        Mlflow(),
        ApiServer(),
        Scheduler(),
        DagProcessor(),
        Triggerer(),
        History(),
    )
}
AIRFLOW = ("api-server", "scheduler", "dag-processor", "triggerer")


def select(words: Iterable[str] | None, options: Options) -> list[str]:
    """Part names for what was asked, with what they need; `airflow` is its four processes, and nothing asked is all."""
    there = {name for name, part in PARTS.items() if part.option is None or getattr(options, part.option)}
    wanted: set[str] = set()
    waiting = list(words or there)
    while waiting:
        word = waiting.pop()
        names = AIRFLOW if word == "airflow" or word in AIRFLOW else (word,)
        for name in names:
            if name not in there:
                known = ", ".join(name for name in PARTS if name in there)
                raise StackError(name, f"no such part; there are {known} and airflow for its four")
            if name not in wanted:
                wanted.add(name)
                waiting.extend(PARTS[name].needs)
    return [name for name in PARTS if name in wanted]
