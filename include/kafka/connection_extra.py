"""Convert a connection's `extra` to a librdkafka configuration, or reject a setting by name.

librdkafka would read a list of brokers as one address in brackets and try to connect to it until it times out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from include.errors import SettingError

_BROKERS = "bootstrap.servers"
_BROKERS_ALIAS = "metadata.broker.list"
# What librdkafka 2.16 reads as a list with commas (CONFIGURATION.md). plugin.library.paths is separated by semicolons,
# ssl.curves.list and ssl.sigalgs.list by colons.
_LISTS = {
    _BROKERS,
    _BROKERS_ALIAS,
    "builtin.features",
    "debug",
    "partition.assignment.strategy",
    "sasl.oauthbearer.extensions",
    "ssl.ca.certificate.stores",
    "ssl.cipher.suites",
    "ssl.providers",
    "topic.blacklist",
}
# What confluent-kafka takes from a program only. A dotted name would be code that the connection brings in.
_FUNCTIONS = re.compile(r".*_cb|on_commit|on_delivery|on_assign|on_revoke|on_lost|logger")
# The beginning of a password, where another setting was pasted into an address.
_PASTED = re.compile(r"(=).*|((?:pass|pwd|token|secret|key)\w*[\"']?\s*:).*", re.IGNORECASE | re.DOTALL)
_ADDRESS = re.compile(
    r"(?:(?:PLAINTEXT|SSL|SASL_PLAINTEXT|SASL_SSL)://)?[\w.\-]*(?:\[[\da-f:.%]+\])?(?::(?P<port>[0-9]{1,20}))?", re.I
)
_PORTS = range(1, 65_536)


def to_client_config(extra: Mapping[str, object]) -> dict[str, str | int | float | bool]:
    """Return the settings, lists joined by commas and without what is null; brokers as bootstrap.servers.

    Raises SettingError, which names the setting and shows no value but an address.
    """
    settings = {name: _value(name, value) for name, value in extra.items() if value is not None}
    for name in (_BROKERS, _BROKERS_ALIAS):
        _check_addresses(name, str(settings.get(name, "")))
    # librdkafka takes the one that comes last.
    if alias := settings.pop(_BROKERS_ALIAS, ""):
        if (settings.get(_BROKERS) or alias) != alias:
            raise SettingError(
                f"kafka_default: {_BROKERS} and {_BROKERS_ALIAS}, its alias, name different brokers: give "
                f"{_BROKERS} only"
            )
        settings[_BROKERS] = alias
    return settings


def _check_addresses(name: str, value: str) -> None:
    # A password may hold commas: only what follows the last @ of the whole value holds none of it.
    _, login, rest = value.rpartition("@")
    if login:
        raise SettingError(
            f"kafka_default: {name} contains a login before {_shown(rest)!r}: give host:port only, and the login as "
            "sasl.username and sasl.password"
        )
    if value and not value.replace(",", "").strip():
        raise SettingError(f"kafka_default: {name} contains no broker address: give host:port")
    for address in value.split(","):
        found = _ADDRESS.fullmatch(address.strip())
        if not found:
            raise SettingError(
                f"kafka_default: {name} contains {_shown(address)!r}, which is not a broker address: give host:port, "
                "several separated by commas, without quotes"
            )
        if found["port"] and int(found["port"]) not in _PORTS:
            raise SettingError(
                f"kafka_default: {name} contains {_shown(address)!r}, whose port is not 1 to {_PORTS[-1]}: give "
                "host:port, as the broker listens"
            )


def _shown(address: str) -> str:
    return _PASTED.sub(lambda found: f"{found[1] or found[2]}…", address.strip())


def _value(name: str, value: object) -> str | int | float | bool:
    if _FUNCTIONS.fullmatch(name):
        instead = ". To get tokens, set sasl.oauthbearer.method=oidc" if name == "oauth_cb" else ""
        raise SettingError(
            f"kafka_default: {name} takes a Python function, which a connection cannot hold: remove it{instead}"
        )
    if isinstance(value, list | tuple):
        if name not in _LISTS:
            raise SettingError(
                f"kafka_default: {name} is a list, which librdkafka does not take there: give one string"
            )
        if not all(isinstance(one, str | int | float) for one in value):
            raise SettingError(
                f"kafka_default: {name} is a list with values other than strings and numbers: give one string"
            )
        return ",".join(str(one).strip() for one in value)
    if not isinstance(value, str | int | float):
        raise SettingError(
            f"kafka_default: {name} is a group of settings, which librdkafka does not take: write each of them at the "
            "top level of extra"
        )
    return value
