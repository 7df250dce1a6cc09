"""List the parts of the stack, in the order in which `status` shows them."""

from __future__ import annotations

from collections.abc import Container, Iterable

from dev.stack.airflow import ApiServer, DagProcessor, Scheduler, Triggerer
from dev.stack.history import History
from dev.stack.home import Options
from dev.stack.kafka import Kafka
from dev.stack.mail import MailCatcher
from dev.stack.mlflow import Mlflow
from dev.stack.part import Part
from dev.stack.postgres import LedgerDatabase, Postgres
from dev.stack.s3 import S3
from dev.stack.stack_errors import StackError
from dev.stack.valkey import Valkey
from dev.stack.worker import WORKERS

PARTS: dict[str, Part] = {
    part.name: part
    for part in (
        Postgres(), LedgerDatabase(), S3(), Valkey(), Kafka(), MailCatcher(), Mlflow(),
        ApiServer(), Scheduler(), DagProcessor(), Triggerer(), *WORKERS, History(),
    )
}  # fmt: skip
AIRFLOW = ("api-server", "scheduler", "dag-processor", "triggerer", *(worker.name for worker in WORKERS))
AIRFLOW_AND_HISTORY = (*AIRFLOW, History.name)


def select(words: Iterable[str] | None, options: Options) -> list[str]:
    """Return the names of the parts that were asked for and of those that they need, in order.

    `airflow` stands for all parts of Airflow; None, or no word, for all parts. Raises StackError for an unknown name.
    """
    there = parts_of(options)
    airflow = airflow_of(there)
    wanted: set[str] = set()
    waiting = list(words or there)
    while waiting:
        word = waiting.pop()
        names = airflow if word == "airflow" or word in airflow else (word,)
        for name in names:
            if name not in there:
                raise StackError(name, f"no such part; give one of {', '.join(there)}, or airflow for all of its parts")
            if name not in wanted:
                wanted.add(name)
                waiting.extend(PARTS[name].needs)
    return [name for name in PARTS if name in wanted]


def parts_of(options: Options) -> dict[str, Part]:
    """Return the parts of a stack with these options, by name."""
    return {name: part for name, part in PARTS.items() if part.option is None or getattr(options, part.option)}


def airflow_of(there: Container[str]) -> tuple[str, ...]:
    """Return the names of Airflow's parts that are among `there`."""
    return tuple(name for name in AIRFLOW if name in there)
