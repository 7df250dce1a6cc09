"""Create Airflow's connections from plain variables, because compose cannot quote a password for JSON or a URL."""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import quote, urlsplit, urlunsplit

from include.errors import SettingError
from include.kafka.client_config import config_from_variables
from include.settings import login

_SMTPS_PORT = 465
# For the local mail catcher. Reports contain payments, so mail is sent unencrypted only with this value.
_NO_ENCRYPTION = "none"
# Variables with a password, and the variables with the URLs that need it.
_URLS_BY_PASSWORD = {
    "VALKEY_PASSWORD": ("AIRFLOW__CELERY__BROKER_URL", "AIRFLOW__CELERY__RESULT_BACKEND", "CELERY_BROKER_URL"),
    "LEDGER_DB_PASSWORD": ("LOGGER_SQL_URI",),
}


def with_connections(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with connections created from the plain variables. Existing connections stay as they are.

    Raise SettingError, which names a variable and never a secret, if a variable is missing that another requires.
    """
    given = {name: value for name, value in environment.items() if value.strip() or not name.startswith(_OURS)}
    factories = {
        "AIRFLOW_CONN_KAFKA_DEFAULT": kafka,
        "AIRFLOW_CONN_SMTP_DEFAULT": smtp,
        "AIRFLOW_CONN_AWS_DEFAULT": aws,
    }
    created = {name: create(given) for name, create in factories.items() if name not in given}
    connections = {name: json.dumps(connection) for name, connection in created.items() if connection}
    urls = {
        name: _with_password(given[name], password)
        for variable, names in _URLS_BY_PASSWORD.items()
        if (password := given.get(variable))
        for name in names
        if name in given
    }
    return given | connections | urls


# An empty variable counts as unset; boto3 would use an empty endpoint.
_OURS = ("AIRFLOW_CONN_", "AWS_", "KAFKA_", "LEDGER_", "LOGGER_", "SASL_", "SMTP_", "VALKEY_")


def kafka(given: Mapping[str, str]) -> dict[str, object] | None:
    """Return the connection kafka_default, or None without brokers. Raise SettingError if the login does not fit."""
    extra = config_from_variables(given)
    if not extra:
        return None
    profiles, user = _profiles(given), extra.get("sasl.username")
    if "accounts" in profiles and not user:
        raise SettingError(_no_login("SASL_USERNAME", "SASL_PASSWORD", "AIRFLOW_CONN_KAFKA_DEFAULT"))
    if "local" in profiles and user:
        raise SettingError(
            "SASL_USERNAME is set, but COMPOSE_PROFILES=local is for the local Kafka, which has no login: simulated "
            "payments would go to your account. `python3 -m include.deployment --accounts` changes .env to accounts"
        )
    return {"conn_type": "kafka", "extra": extra}


def smtp(given: Mapping[str, str]) -> dict[str, object] | None:
    """Return the connection smtp_default, or None without a server. Raise SettingError for an invalid variable."""
    server = given.get("SMTP_SERVER")
    if not server:
        return None
    user, password = login(given, "SMTP_USER", "SMTP_PASSWORD")
    if "accounts" in _profiles(given) and not user:
        raise SettingError(_no_login("SMTP_USER", "SMTP_PASSWORD", "AIRFLOW_CONN_SMTP_DEFAULT"))
    sender = given.get("SMTP_FROM") or (user if user and "@" in user else None)
    if not sender:
        raise SettingError("SMTP_FROM is missing: set it to the sender's address, because SMTP_USER is no mail address")
    port = given.get("SMTP_PORT", "587")
    if not port.isdecimal():
        raise SettingError(f"SMTP_PORT={port!r}: give a number")
    encryption = given.get("SMTP_ENCRYPTION", "").strip()
    if encryption not in ("", _NO_ENCRYPTION) or (encryption and user):
        raise SettingError(
            f"SMTP_ENCRYPTION={encryption!r} cannot be used: remove it, and mail is sent with STARTTLS or, on port "
            f"{_SMTPS_PORT}, with TLS. It may be {_NO_ENCRYPTION} only without SMTP_USER"
        )
    # Without either option Airflow's hook uses TLS from the first byte and then STARTTLS.
    disabled = {"disable_tls": True} if int(port) == _SMTPS_PORT else {"disable_ssl": True}
    if encryption:
        disabled = {"disable_tls": True, "disable_ssl": True}
    extra = {"from_email": sender, "timeout": 10, "retry_limit": 1, **disabled}
    known = {"login": user, "password": password} if user else {}
    return {"conn_type": "smtp", "host": server, "port": int(port), **known, "extra": extra}


def aws(given: Mapping[str, str]) -> dict[str, object] | None:
    """Return the connection aws_default, or None without keys. Raise SettingError if only one of the two is set."""
    key, secret = login(given, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    if not key:
        return None
    extra: dict[str, object] = {"region_name": given["AWS_REGION"]} if "AWS_REGION" in given else {}
    if endpoint := given.get("AWS_ENDPOINT_URL_S3"):
        extra["service_config"] = {"s3": {"endpoint_url": endpoint}}
    return {"conn_type": "aws", "login": key, "password": secret, "extra": extra}


def _profiles(given: Mapping[str, str]) -> list[str]:
    """Return docker compose's profiles, or one empty name outside of compose."""
    return given.get("COMPOSE_PROFILES", "").split(",")


def _no_login(user: str, password: str, connection: str) -> str:
    return (
        f"{user} and {password} are missing, which COMPOSE_PROFILES=accounts needs: add them to .env, or a complete "
        f"{connection} (docs/configuration.md)"
    )


def _with_password(url: str, password: str) -> str:
    """Return the URL with the password, unless it has one. An invalid URL stays as it is; connecting to it fails."""
    try:
        parts = urlsplit(url)
        login, _, host = parts.netloc.rpartition("@")
        if parts.password is not None:
            return url
    except ValueError:
        return url
    return urlunsplit(parts._replace(netloc=f"{login}:{quote(password, safe='')}@{host}"))
