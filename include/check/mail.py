"""Who would be mailed. Whether the server takes it, Airflow's own hook says."""

from __future__ import annotations

from collections.abc import Iterator

from include.check.check import Found
from include.errors import SettingError
from include.settings import Settings


def check_addresses(settings: Settings) -> Iterator[Found]:
    if not settings.recipients:
        raise SettingError("EMAIL_RECIPIENT names nobody: give the addresses that fraud reports go to")
    yield Found("EMAIL_RECIPIENT", ", ".join(settings.recipients))
    yield Found(
        "FRAUD_OPERATORS_EMAIL",
        ", ".join(settings.operators) or "nobody: of failed and late runs nobody will be told",
    )
