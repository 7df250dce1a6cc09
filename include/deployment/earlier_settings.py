"""Read the settings of an earlier setup from a `secrets.ps1`, a `client.properties` of Confluent Cloud, or an `.env`.

Standard library only, from Python 3.9 on, like env_file.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path

from include.deployment import assignments, powershell, properties
from include.deployment.env_file import is_placeholder
from include.deployment.text_file import read_text
from include.errors import SettingError

NAMES = (
    "KAFKA_BOOTSTRAP_SERVERS",
    "SASL_USERNAME",
    "SASL_PASSWORD",
    "AWS_REGION",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "S3_BUCKET",
    "SMTP_SERVER",
    "SMTP_PORT",
    "SMTP_USER",
    "SMTP_PASSWORD",
    "SMTP_FROM",
    "EMAIL_RECIPIENT",
    "LOGGER_SQL_URI",
)
_OTHER_NAMES = {
    "BOOTSTRAP_SERVERS": "KAFKA_BOOTSTRAP_SERVERS",
    "AWS_DEFAULT_REGION": "AWS_REGION",
    "bootstrap.servers": "KAFKA_BOOTSTRAP_SERVERS",
    "sasl.username": "SASL_USERNAME",
    "sasl.password": "SASL_PASSWORD",
}
_PROPERTIES = re.compile(r"^[ \t]*(?:bootstrap\.servers|sasl\.\w|security\.protocol)", re.MULTILINE)
_POWERSHELL = re.compile(r"^[ \t]*\$\{?(?:env:)?\w+\}?[ \t]*=", re.MULTILINE | re.IGNORECASE)
_WANTED = (*NAMES, *_OTHER_NAMES)


def read_earlier(path: Path) -> dict[str, str]:
    """Return the settings of NAMES that the file has.

    Raise SettingError, which never quotes a value, if it has none or a value cannot be read with certainty.
    """
    text = read_text(path)
    found = _choose_reader(path, text)(text, _WANTED, str(path))
    known = {_OTHER_NAMES.get(name, name): value for name, value in found.items()}
    settings = {name: known[name] for name in NAMES if known.get(name)}
    if not settings:
        raise SettingError(
            f"{path}: holds none of {', '.join(NAMES)}; give a secrets.ps1, a client.properties or an .env"
        )
    for name, value in settings.items():
        if is_placeholder(value):
            raise SettingError(
                f"{path}: {name} still contains a placeholder such as {{{{ NAME }}}} or <NAME>: replace it with the "
                "value"
            )
    return settings


def _choose_reader(path: Path, text: str) -> Callable[[str, Collection[str], str], dict[str, str]]:
    """Return the reader for the file's format, which its name or else its text shows."""
    suffix = path.suffix.lower()
    if suffix in (".ps1", ".psm1"):
        return powershell.read
    if suffix == ".properties" or _PROPERTIES.search(text):
        return properties.read
    return powershell.read if _POWERSHELL.search(text) else assignments.read
