"""Converts settings to a configuration of librdkafka, or rejects one by name.

The settings are the field `extra` of the connection kafka_default, or come from variables and options.
confluent-kafka would turn a JSON list of brokers into one address with brackets, and requests would only time out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from include.errors import SettingError

_BROKERS = "bootstrap.servers"
_BROKERS_ALIAS = "metadata.broker.list"
# The settings that librdkafka 2.16 reads as a list with commas (its CONFIGURATION.md). The separator is a semicolon in
# plugin.library.paths, and a colon in ssl.curves.list and ssl.sigalgs.list.
_COMMA_LISTS = {
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
# The settings that take a Python function. confluent-kafka also accepts a dotted name and imports it, so a connection
# could run code.
_CALLBACKS = re.compile(r".*_cb|on_commit|on_delivery|on_assign|on_revoke|on_lost|logger")
# If another setting was pasted into an address, the text after "=", or after a name such as "password" and ":", may be
# a secret. The groups are what may be shown.
_PASTED_SECRET = re.compile(r"(=).*|((?:pass|pwd|token|secret|key)\w*[\"']?\s*:).*", re.IGNORECASE | re.DOTALL)
_ADDRESS = re.compile(
    r"(?:(?:PLAINTEXT|SSL|SASL_PLAINTEXT|SASL_SSL)://)?[\w.\-]*(?:\[[\da-f:.%]+\])?(?::(?P<port>[0-9]{1,20}))?", re.I
)
_PORTS = range(1, 65_536)


def to_client_config(extra: Mapping[str, object], source: str = "kafka_default") -> dict[str, str | int | float | bool]:
    """Return the settings without nulls, with lists joined by commas and the brokers as bootstrap.servers.

    Raise SettingError for a Python function, a JSON object, a list that librdkafka does not take, an invalid broker
    address, and for different brokers in bootstrap.servers and its alias. The error names `source`, where the settings
    come from, and the setting; of values it shows only addresses, without secrets. Unknown settings and other values
    are not checked: librdkafka rejects them when a client is created.
    """
    settings = {name: _convert_value(source, name, value) for name, value in extra.items() if value is not None}
    for name in (_BROKERS, _BROKERS_ALIAS):
        _check_addresses(source, name, str(settings.get(name, "")))
    # If both are set, librdkafka uses the last one.
    if alias := settings.pop(_BROKERS_ALIAS, ""):
        if (settings.get(_BROKERS) or alias) != alias:
            raise SettingError(
                f"{source}: {_BROKERS} and {_BROKERS_ALIAS}, its alias, name different brokers: give {_BROKERS} only"
            )
        settings[_BROKERS] = alias
    return settings


def _check_addresses(source: str, name: str, value: str) -> None:
    # A password may contain commas, so only the text after the last @ of the whole value is safe to show.
    _, separator, rest = value.rpartition("@")
    if separator:
        raise SettingError(
            f"{source}: {name} contains a login before {_without_secret(rest)!r}: give host:port only; the "
            "login belongs in sasl.username and sasl.password, or in SASL_USERNAME and SASL_PASSWORD"
        )
    if value and not value.replace(",", "").strip():
        raise SettingError(f"{source}: {name} contains no broker address: give host:port")
    for address in value.split(","):
        found = _ADDRESS.fullmatch(address.strip())
        if not found:
            raise SettingError(
                f"{source}: {name} contains {_without_secret(address)!r}, which is not a broker address: give "
                "host:port, several separated by commas, without quotes"
            )
        if found["port"] and int(found["port"]) not in _PORTS:
            raise SettingError(
                f"{source}: {name} contains {_without_secret(address)!r}, whose port is not 1 to {_PORTS[-1]}: "
                "give host:port, as the broker listens"
            )


def _without_secret(address: str) -> str:
    """Return the address without a password that was pasted into it."""
    return _PASTED_SECRET.sub(lambda found: f"{found[1] or found[2]}…", address.strip())


def _convert_value(source: str, name: str, value: object) -> str | int | float | bool:
    if _CALLBACKS.fullmatch(name):
        instead = ". To get tokens, set sasl.oauthbearer.method=oidc" if name == "oauth_cb" else ""
        raise SettingError(
            f"{source}: {name} takes a Python function, which a connection cannot hold: remove it{instead}"
        )
    if isinstance(value, list | tuple):
        if name not in _COMMA_LISTS:
            raise SettingError(f"{source}: {name} is a list, which librdkafka does not take there: give one string")
        if not all(isinstance(item, str | int | float) for item in value):
            raise SettingError(
                f"{source}: {name} is a list with values other than strings and numbers: give one string"
            )
        return ",".join(str(item).strip() for item in value)
    if not isinstance(value, str | int | float):
        raise SettingError(
            f"{source}: {name} is a JSON object, which librdkafka does not take: write each of its settings "
            "at the top level of extra"
        )
    return value
