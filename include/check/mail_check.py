"""Who would be mailed. Whether the server takes it, Airflow's own hook says."""

from __future__ import annotations

from collections.abc import Iterator

from include.check.check_result import CheckResult
from include.errors import SettingError
from include.settings import Settings


def check_addresses(settings: Settings) -> Iterator[CheckResult]:
    if not settings.recipients:
        raise SettingError("EMAIL_RECIPIENT names nobody: give the addresses that fraud reports go to")
    yield CheckResult("EMAIL_RECIPIENT", ", ".join(settings.recipients))
    yield CheckResult(
        "FRAUD_OPERATORS_EMAIL",
        ", ".join(settings.operators) or "nobody: of failed and late runs nobody will be told",
    )
