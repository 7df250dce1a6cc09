"""Airflow's connections from plain variables, read by Airflow: any character may be in a password."""

from __future__ import annotations

import json
import subprocess
import sys
from urllib.parse import unquote, urlsplit

import pytest

from include.deployment.connection_variables import with_connections
from include.errors import SettingError
from include.kafka.client_config import read_client_config
from include.ledger.connection import LedgerConnection

ANY = "p'a\"s$s%41@:/\\`{}# w"
ACCOUNTS = {
    "KAFKA_BOOTSTRAP_SERVERS": "pkc-1:9092",
    "SASL_USERNAME": "KEY",
    "SASL_PASSWORD": ANY,
    "AWS_REGION": "eu-central-1",
    "AWS_ACCESS_KEY_ID": "AKIA",
    "AWS_SECRET_ACCESS_KEY": ANY,
    "SMTP_SERVER": "smtp.example.com",
    "SMTP_PORT": "587",
    "SMTP_USER": "me@x.org",
    "SMTP_PASSWORD": ANY,
}


NO_KAFKA_LOGIN = {"SASL_USERNAME": "", "SASL_PASSWORD": ""}
NO_MAIL_LOGIN = {"SMTP_USER": "", "SMTP_PASSWORD": "", "SMTP_FROM": "f@x.org"}


def test_airflow_reads_the_connections(monkeypatch: pytest.MonkeyPatch):
    from airflow.sdk import Connection

    made = with_connections(ACCOUNTS)
    kafka = Connection.from_json(made["AIRFLOW_CONN_KAFKA_DEFAULT"], conn_id="kafka_default")
    assert kafka.extra_dejson == {
        "bootstrap.servers": "pkc-1:9092",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "KEY",
        "sasl.password": ANY,
    }
    aws = Connection.from_json(made["AIRFLOW_CONN_AWS_DEFAULT"], conn_id="aws_default")
    assert (aws.login, aws.password, aws.extra_dejson) == ("AKIA", ANY, {"region_name": "eu-central-1"})
    smtp = Connection.from_json(made["AIRFLOW_CONN_SMTP_DEFAULT"], conn_id="smtp_default")
    assert (smtp.host, smtp.port, smtp.login, smtp.password) == ("smtp.example.com", 587, "me@x.org", ANY)
    assert smtp.extra_dejson == {"from_email": "me@x.org", "disable_ssl": True, "timeout": 10, "retry_limit": 1}


def test_complete_connection_replaces_the_login_that_accounts_need():
    whole = {"AIRFLOW_CONN_KAFKA_DEFAULT": "mine", "AIRFLOW_CONN_SMTP_DEFAULT": "mine", "SMTP_PORT": "mail"}
    given = ACCOUNTS | NO_KAFKA_LOGIN | NO_MAIL_LOGIN | whole | {"COMPOSE_PROFILES": "accounts"}
    made = with_connections(given)
    assert whole.items() <= made.items()


def test_commands_have_the_same_kafka_configuration_as_airflow():
    assert read_client_config(ACCOUNTS) == json.loads(with_connections(ACCOUNTS)["AIRFLOW_CONN_KAFKA_DEFAULT"])["extra"]


def test_existing_connection_is_unchanged():
    given = ACCOUNTS | {"AIRFLOW_CONN_KAFKA_DEFAULT": "mine", "AIRFLOW_CONN_SMTP_DEFAULT": " "}
    made = with_connections(given)
    assert made["AIRFLOW_CONN_KAFKA_DEFAULT"] == "mine"
    assert "smtp.example.com" in made["AIRFLOW_CONN_SMTP_DEFAULT"]


@pytest.mark.parametrize(
    ("change", "extra"),
    [
        ({"SMTP_PORT": "465"}, {"disable_tls": True}),
        ({"SMTP_PORT": ""}, {"disable_ssl": True}),
        (NO_MAIL_LOGIN, {"disable_ssl": True}),
        (NO_MAIL_LOGIN | {"SMTP_ENCRYPTION": "none"}, {"disable_ssl": True, "disable_tls": True}),
    ],
)
def test_mail_is_encrypted_by_default(change: dict[str, str], extra: dict[str, bool]):
    made = json.loads(with_connections(ACCOUNTS | change)["AIRFLOW_CONN_SMTP_DEFAULT"])
    assert {name: value for name, value in made["extra"].items() if name.startswith("disable")} == extra


def test_local_s3_has_an_endpoint_and_other_variables_are_unchanged():
    made = with_connections(
        {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_ENDPOINT_URL_S3": "http://s3:8333", "KEPT": ""}
    )
    extra = json.loads(made["AIRFLOW_CONN_AWS_DEFAULT"])["extra"]
    assert extra == {"service_config": {"s3": {"endpoint_url": "http://s3:8333"}}}
    assert made["KEPT"] == ""
    assert set(made) == {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_S3", "KEPT"} | {
        "AIRFLOW_CONN_AWS_DEFAULT"
    }


def test_empty_variable_counts_as_unset():
    """boto3 would take it for a URL."""
    assert "AWS_ENDPOINT_URL_S3" not in with_connections(ACCOUNTS | {"AWS_ENDPOINT_URL_S3": ""})


def test_password_is_inserted_into_celerys_urls():
    url = with_connections({"AIRFLOW__CELERY__BROKER_URL": "redis://valkey:6379/0", "VALKEY_PASSWORD": ANY})[
        "AIRFLOW__CELERY__BROKER_URL"
    ]
    parts = urlsplit(url)
    assert (parts.hostname, parts.port, parts.path, unquote(parts.password or "")) == ("valkey", 6379, "/0", ANY)
    mine = {"AIRFLOW__CELERY__BROKER_URL": "redis://:x@valkey:6379/0", "VALKEY_PASSWORD": ANY}
    assert with_connections(mine) == mine


def test_password_is_inserted_into_the_ledgers_url():
    given = {"LOGGER_SQL_URI": "postgresql://ledger@ledger/ledger?sslmode=require", "LEDGER_DB_PASSWORD": ANY}
    found = LedgerConnection.from_environment(with_connections(given))
    assert (str(found), found.user, found.password) == ("ledger:5432/ledger", "ledger", ANY)
    assert found.options == {"sslmode": "require"}


@pytest.mark.parametrize("address", ["postgresql://u:x@h/d", "postgresql://u:@h/d", "postgresql://[h/d", ""])
def test_url_with_a_password_and_invalid_url_are_unchanged(address: str):
    given = {"LOGGER_SQL_URI": address, "LEDGER_DB_PASSWORD": ANY}
    assert with_connections(given).get("LOGGER_SQL_URI", "") == address


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"SASL_PASSWORD": ""}, "SASL_PASSWORD is missing: SASL_USERNAME is set"),
        ({"AWS_ACCESS_KEY_ID": ""}, "AWS_ACCESS_KEY_ID is missing: AWS_SECRET_ACCESS_KEY is set"),
        ({"SMTP_USER": "AKIA"}, "SMTP_FROM is missing"),
        ({"SMTP_PORT": "mail"}, "SMTP_PORT='mail': give a number"),
        ({"SMTP_ENCRYPTION": "none"}, "SMTP_ENCRYPTION='none' cannot be used: remove it"),
        (NO_MAIL_LOGIN | {"SMTP_ENCRYPTION": "ssl"}, "SMTP_ENCRYPTION='ssl' cannot be used: remove it"),
        (NO_KAFKA_LOGIN | {"COMPOSE_PROFILES": "accounts"}, "SASL_USERNAME and SASL_PASSWORD are missing"),
        (NO_MAIL_LOGIN | {"COMPOSE_PROFILES": "accounts"}, "SMTP_USER and SMTP_PASSWORD are missing"),
        ({"COMPOSE_PROFILES": "local"}, "simulated payments would go to your account"),
    ],
)
def test_missing_or_invalid_variable_is_named(change: dict[str, str], expected: str):
    with pytest.raises(SettingError, match=expected) as error:
        with_connections(ACCOUNTS | change)
    assert ANY not in str(error.value)


def test_fraud_run_replaces_itself_with_the_command():
    code = "import os, sys; print(os.environ['AIRFLOW_CONN_KAFKA_DEFAULT'], os.getpid(), sys.argv[1:])"
    command = [sys.executable, "-m", "include.cli.main", "run", sys.executable, "-c", code, "--rate", "5", "-x"]
    environment = {"KAFKA_BOOTSTRAP_SERVERS": "k:1", "PATH": "/usr/bin:/bin"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        printed = process.communicate(timeout=60)[0]
    assert process.returncode == 0
    assert printed.strip() == (
        '{"conn_type": "kafka", "extra": {"bootstrap.servers": "k:1"}} ' + f"{process.pid} ['--rate', '5', '-x']"
    )


@pytest.mark.parametrize(
    ("command", "environment", "error"),
    [
        (["no-such-command"], {}, "fraud run: 'no-such-command' cannot be run: No such file or directory\n"),
        (
            ["true"],
            {"KAFKA_BOOTSTRAP_SERVERS": "k:1", "SASL_USERNAME": "u"},
            "fraud run: SASL_PASSWORD is missing: SASL_USERNAME is set\n",
        ),
    ],
)
def test_fraud_run_reports_why_it_cannot_start(command: list[str], environment: dict[str, str], error: str):
    done = subprocess.run(
        [sys.executable, "-m", "include.cli.main", "run", *command],
        env={"PATH": "/usr/bin:/bin", **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, error)
