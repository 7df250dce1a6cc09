"""Check the addresses that receive mails. `airflow_check.py` checks the mail server, through Airflow's hook."""

from __future__ import annotations

from collections.abc import Iterator

from include.check.check_result import CheckResult
from include.errors import SettingError
from include.settings import Settings


def check_addresses(settings: Settings) -> Iterator[CheckResult]:
    """Yield the recipients of reports and those of failure mails. Raise SettingError if reports have no recipient."""
    if not settings.recipients:
        raise SettingError("EMAIL_RECIPIENT is empty: set it to the addresses that receive fraud reports")
    yield CheckResult("EMAIL_RECIPIENT", ", ".join(settings.recipients))
    yield CheckResult(
        "FRAUD_OPERATORS_EMAIL",
        ", ".join(settings.operators) or "not set: no one is mailed about failed runs, late runs and alarms",
    )
