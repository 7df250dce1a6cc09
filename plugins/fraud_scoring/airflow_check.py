"""Check each connection as tasks use it, and print one line for each, never a secret. `fraud check` runs this."""

from __future__ import annotations

import smtplib
import sys
from collections.abc import Iterable, Iterator

from airflow.configuration import conf
from airflow.models.variable import Variable as StoredVariable
from airflow.sdk.exceptions import AirflowException
from airflow.utils.session import create_session
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from fraud_scoring.airflow_connections import (
    SMTP,
    kafka_config,
    ledger,
    staging,
    use_aws_connection,
)
from fraud_scoring.confirmed_bucket import Bucket
from fraud_scoring.held_model import current_hold
from fraud_scoring.smtp_hook import (
    NOT_ENCRYPTED,
    MailServer,
    encryption,
    mail_server_error,
    server_address,
    smtp_connection,
)
from include.check.check_result import Check, CheckResult, run_checks
from include.check.kafka_check import check_kafka
from include.check.ledger_check import check_ledger
from include.check.mail_check import check_addresses
from include.check.models_check import check_models
from include.check.staging_check import check_staging
from include.cli.console import BAD, GOOD, output
from include.cli.registration import NOT_GOOD, OK
from include.errors import SettingError
from include.kafka.cluster import Cluster
from include.models.resolve import DEFAULT, HOLD
from include.settings import Settings

_DATABASE = "Airflow's database"


def main() -> int:
    """Run all checks, print the results, and return the exit code: 0 if all passed."""
    try:
        settings = Settings.from_environment()
    except SettingError as error:
        return _report([CheckResult("settings", str(error), ok=False)])
    return _report([*_check_database(), *_use_aws(), *run_checks(_checks(settings))])


def _check_database() -> Iterator[CheckResult]:
    """Yield a result if Airflow's database cannot be read. Without it, connections stored there would look missing."""
    try:
        with create_session() as session:
            session.scalar(select(StoredVariable.id).limit(1))
    except SQLAlchemyError as error:
        if not conf.get_mandatory_value("database", "sql_alchemy_conn").startswith("sqlite"):
            # Its text may quote the database's URL, with the password.
            yield CheckResult(
                _DATABASE,
                f"cannot be read ({type(error).__name__}): check that it is running and migrated, and [database] "
                "sql_alchemy_conn",
                ok=False,
            )
            return
        yield CheckResult(
            _DATABASE,
            "none here, as on a worker: connections and a held model (fraud_model_hold) that are stored in it were not "
            "checked. Run this in the scheduler's environment to check them",
        )


def _use_aws() -> Iterator[CheckResult]:
    """Put the connection into the environment, which all checks share, or yield why it cannot be used."""
    try:
        use_aws_connection()
    except Exception as error:
        # Its text may quote a secret from the connection.
        failure = f"cannot be used ({type(error).__name__}): correct its login, password or extra"
        yield CheckResult("aws_default", failure, ok=False)


def _checks(settings: Settings) -> list[tuple[str, Check]]:
    return [
        ("kafka_default", lambda: check_kafka(Cluster(kafka_config() | {"log_level": 0}), settings)),
        ("MLflow and model", lambda: check_models(settings, *_requested_model(settings))),
        ("staging", lambda: check_staging(staging(settings))),
        ("ledger_db", lambda: check_ledger(ledger())),
        ("FRAUD_CONFIRMED_URL", lambda: _check_confirmed(settings)),
        (SMTP, _check_mail_server),
        ("mail addresses", lambda: check_addresses(settings)),
    ]


def _requested_model(settings: Settings) -> tuple[str, str]:
    """Return the model that the next scheduled run requests, and what chose it."""
    hold = current_hold()
    return (hold.pinned, HOLD) if hold else (settings.model, DEFAULT)


def _check_confirmed(settings: Settings) -> Iterator[CheckResult]:
    name = "FRAUD_CONFIRMED_URL"
    if not settings.confirmed_url:
        yield CheckResult(name, "not set: exports are off, and a run of the DAG export_confirmed would fail")
        return
    Bucket.from_settings(settings).probe()
    yield CheckResult(name, f"{settings.confirmed_url} can be written")


def _check_mail_server() -> Iterator[CheckResult]:
    connection = smtp_connection(SMTP)
    if connection.login and not connection.password:
        raise SettingError(
            f"has the login {connection.login} but no password, so Airflow would not log in: add the password"
        )
    try:
        with MailServer(SMTP):
            login = f"as {connection.login}" if connection.login else "without a login"
    except (OSError, smtplib.SMTPException, AirflowException) as error:
        raise mail_server_error(connection, error) from error
    encrypted = encryption(connection)
    if encrypted == NOT_ENCRYPTED and connection.login:
        encrypted += ": login and reports can be read in transit"
    sender = connection.extra_dejson["from_email"]
    yield CheckResult(SMTP, f"{server_address(connection)}, {encrypted}, {login}, from {sender}")


def _report(results: Iterable[CheckResult]) -> int:
    """Print the results as they come, and return the exit code."""
    out, printed = output(json="--json" in sys.argv[1:]), []
    for result in results:
        printed.append(result)
        out.line(f"{'ok   ' if result.ok else 'WRONG'}  {result.name}: {result.text}", "" if result.ok else BAD)
    wrong = sum(not result.ok for result in printed)
    if wrong:
        out.line(f"{wrong} to fix", BAD)
    else:
        out.line("all is well", GOOD)
    out.document({"ok": not wrong, "checks": printed})
    return NOT_GOOD if wrong else OK


if __name__ == "__main__":
    sys.exit(main())
