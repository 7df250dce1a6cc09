"""How this product's errors fail a task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.sdk.exceptions import AirflowFailException

from include.errors import FraudError


@contextmanager
def plain_failures() -> Iterator[None]:
    """A permanent error fails the task at once; any other one leaves it its retries."""
    try:
        yield
    except FraudError as error:
        if error.permanent:
            raise AirflowFailException(f"{type(error).__name__}: {error}") from error
        raise
