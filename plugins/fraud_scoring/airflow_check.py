"""Try each connection as tasks get it, and print one line each, never a secret: what `fraud check` runs."""

from __future__ import annotations

import smtplib
import sys
from collections.abc import Iterable, Iterator

from airflow.configuration import conf
from airflow.models.variable import Variable as KeptVariable
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
from fraud_scoring.held_model import held_model
from fraud_scoring.smtp_hook import NOT_ENCRYPTED, MailServer, address, encryption, mail_failure, smtp_connection
from include.check.check_result import Check, CheckResult, run
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
    try:
        settings = Settings.from_environment()
    except SettingError as error:
        return _report([CheckResult("settings", str(error), ok=False)])
    return _report([*_database(), *_aws(), *run(_checks(settings))])


def _database() -> Iterator[CheckResult]:
    """Who is told nothing of it would take a connection for missing that lies there."""
    try:
        with create_session() as session:
            session.scalar(select(KeptVariable.id).limit(1))
    except SQLAlchemyError as error:
        if not conf.get_mandatory_value("database", "sql_alchemy_conn").startswith("sqlite"):
            # Its text may quote the address, with the password.
            wrong = f"cannot be read ({type(error).__name__})"
            mend = "is it up and migrated, and [database] sql_alchemy_conn right?"
            yield CheckResult(_DATABASE, f"{wrong}: {mend}", ok=False)
            return
        yield CheckResult(
            _DATABASE,
            "none here, as on a worker: connections and a held model (fraud_model_hold) that are kept there were not "
            "seen; where the scheduler's environment is, they are",
        )


def _aws() -> Iterator[CheckResult]:
    # boto3 and pyarrow read the environment, of which there is one for all checks.
    try:
        use_aws_connection()
    except Exception as error:
        # Its text may quote what stands in the connection.
        wrong = f"cannot be used ({type(error).__name__}): see to its login, password and extra"
        yield CheckResult("aws_default", wrong, ok=False)


def _checks(settings: Settings) -> list[tuple[str, Check]]:
    return [
        ("kafka_default", lambda: check_kafka(Cluster(kafka_config() | {"log_level": 0}), settings)),
        ("MLflow and model", lambda: check_models(settings, *_asked(settings))),
        ("staging", lambda: check_staging(staging(settings))),
        ("ledger_db", lambda: check_ledger(ledger())),
        ("FRAUD_CONFIRMED_URL", lambda: _check_confirmed(settings)),
        (SMTP, _check_mail_server),
        ("mail addresses", lambda: check_addresses(settings)),
    ]


def _asked(settings: Settings) -> tuple[str, str]:
    hold = held_model()
    return (hold.pinned, HOLD) if hold else (settings.model, DEFAULT)


def _check_confirmed(settings: Settings) -> Iterator[CheckResult]:
    name = "FRAUD_CONFIRMED_URL"
    if not settings.confirmed_url:
        yield CheckResult(name, "not set: exports are off, and a run of the DAG export_confirmed would fail")
        return
    Bucket.of(settings).probe()
    yield CheckResult(name, f"{settings.confirmed_url} can be written")


def _check_mail_server() -> Iterator[CheckResult]:
    connection = smtp_connection(SMTP)
    if connection.login and not connection.password:
        raise SettingError(f"has the login {connection.login} and no password: Airflow would not log in")
    try:
        with MailServer(SMTP):
            login = f"as {connection.login}" if connection.login else "without a login"
    except (OSError, smtplib.SMTPException, AirflowException) as error:
        raise mail_failure(connection, error) from error
    encrypted = encryption(connection)
    if encrypted == NOT_ENCRYPTED and connection.login:
        encrypted += ": login and reports can be read in transit"
    sender = connection.extra_dejson["from_email"]
    yield CheckResult(SMTP, f"{address(connection)}, {encrypted}, {login}, from {sender}")


def _report(results: Iterable[CheckResult]) -> int:
    """Write the results as they come, and return the exit code."""
    out, found = output(json="--json" in sys.argv[1:]), []
    for result in results:
        found.append(result)
        out.line(f"{'ok   ' if result.ok else 'WRONG'}  {result.name}: {result.text}", "" if result.ok else BAD)
    wrong = sum(not result.ok for result in found)
    if wrong:
        out.line(f"{wrong} to fix", BAD)
    else:
        out.line("all is well", GOOD)
    out.document({"ok": not wrong, "checks": found})
    return NOT_GOOD if wrong else OK


if __name__ == "__main__":
    sys.exit(main())
