"""Translate this product's errors into failures of a task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow.sdk.exceptions import AirflowFailException

from include.errors import FraudError


@contextmanager
def translate_permanent_errors() -> Iterator[None]:
    """Raise AirflowFailException in place of a permanent FraudError, so that the task fails without retries."""
    try:
        yield
    except FraudError as error:
        if error.permanent:
            raise AirflowFailException(f"{type(error).__name__}: {error}") from error
        raise
