"""Airflow's connections from plain variables: compose cannot quote a password into JSON or into a URL."""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import quote, urlsplit, urlunsplit

from include.errors import SettingError
from include.kafka.config import plain_settings
from include.settings import login

# Without a login nothing is encrypted: then it is a mail catcher, or a relay in one's own network.
_PORTS = {True: "587", False: "25"}
_TLS_FROM_THE_FIRST_BYTE = 465
_WITH_VALKEYS_PASSWORD = ("AIRFLOW__CELERY__BROKER_URL", "AIRFLOW__CELERY__RESULT_BACKEND", "CELERY_BROKER_URL")


def with_connections(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment with what the plain variables amount to. A connection that is there stays as it is.

    Raises SettingError, which names a variable and never its value, where one is missing that another needs.
    """
    given = {name: value for name, value in environment.items() if value.strip() or not name.startswith(_OURS)}
    made = {
        "AIRFLOW_CONN_KAFKA_DEFAULT": kafka(given),
        "AIRFLOW_CONN_SMTP_DEFAULT": smtp(given),
        "AIRFLOW_CONN_AWS_DEFAULT": aws(given),
    }
    connections = {name: json.dumps(one) for name, one in made.items() if one and name not in given}
    password = given.get("VALKEY_PASSWORD")
    urls = {
        name: _with_password(given[name], password) for name in _WITH_VALKEYS_PASSWORD if password and name in given
    }
    return given | connections | urls


# An empty one counts as unset; boto3 would take an empty endpoint for an address.
_OURS = ("AIRFLOW_CONN_", "AWS_", "KAFKA_", "SASL_", "SMTP_", "VALKEY_")


def kafka(given: Mapping[str, str]) -> dict[str, object] | None:
    extra = plain_settings(given)
    return {"conn_type": "kafka", "extra": extra} if extra else None


def smtp(given: Mapping[str, str]) -> dict[str, object] | None:
    server = given.get("SMTP_SERVER")
    if not server:
        return None
    user, password = login(given, "SMTP_USER", "SMTP_PASSWORD")
    sender = given.get("SMTP_FROM") or (user if user and "@" in user else None)
    if not sender:
        raise SettingError("SMTP_FROM is missing: the address that mail comes from, where SMTP_USER is none")
    port = given.get("SMTP_PORT", _PORTS[bool(user)])
    if not port.isdecimal():
        raise SettingError(f"SMTP_PORT={port!r}: give a number")
    # Airflow's words: without both it is TLS from the first byte and then STARTTLS.
    encrypted = {"disable_tls": True} if int(port) == _TLS_FROM_THE_FIRST_BYTE else {"disable_ssl": True}
    plain = {"disable_tls": True, "disable_ssl": True}
    extra = {"from_email": sender, "timeout": 10, "retry_limit": 1, **(encrypted if user else plain)}
    known = {"login": user, "password": password} if user else {}
    return {"conn_type": "smtp", "host": server, "port": int(port), **known, "extra": extra}


def aws(given: Mapping[str, str]) -> dict[str, object] | None:
    key, secret = login(given, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    if not key:
        return None
    extra: dict[str, object] = {"region_name": given["AWS_REGION"]} if "AWS_REGION" in given else {}
    if endpoint := given.get("AWS_ENDPOINT_URL_S3"):
        extra["service_config"] = {"s3": {"endpoint_url": endpoint}}
    return {"conn_type": "aws", "login": key, "password": secret, "extra": extra}


def _with_password(url: str, password: str) -> str:
    parts = urlsplit(url)
    return (
        url if "@" in parts.netloc else urlunsplit(parts._replace(netloc=f":{quote(password, safe='')}@{parts.netloc}"))
    )
