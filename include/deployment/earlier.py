"""The variables of an earlier setup: a `secrets.ps1` of PowerShell, or Confluent Cloud's `client.properties`.

Standard library only, from Python 3.9 on, as env_file.py.
"""

from __future__ import annotations

import codecs
import re
from pathlib import Path

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
# `$env:NAME = …`, `$NAME = …`, `${env:NAME} = …`; several may stand on a line, and what follows # or between <# #> is a
# comment. Between double quotes ` escapes, between single ones nothing does; a quote written twice is one.
_ASSIGNMENT = re.compile(
    r"""<\#.*?\#> | \#[^\n]*
    | \$ (?: \{ (?:env:)? (?P<braced>\w+) \} | (?:env:)? (?P<name>\w+) ) [ \t]* = [ \t]*
      (?: "(?P<double>(?:[^"`]|`.|"")*)" | '(?P<single>(?:[^']|'')*)' | (?P<bare>[^\s;\#'"$(@]+) )
    | "(?:[^"`]|`.|"")*" | '(?:[^']|'')*'""",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_POWERSHELL_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "0": "\0", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_JAVA_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "f": "\f"}


def read_earlier(path: Path) -> dict[str, str]:
    """What of NAMES it holds. Raises SettingError, which never quotes a value."""
    text = _text(path).replace("\r\n", "\n")
    found = _powershell(text, path) if path.suffix.lower() == ".ps1" else _properties(text, path)
    known = {_OTHER_NAMES.get(name, name): value for name, value in found.items()}
    taken = {name: known[name] for name in NAMES if known.get(name)}
    if not taken:
        raise SettingError(f"{path}: holds none of {', '.join(NAMES)}; give a secrets.ps1 or a client.properties")
    return taken


def _text(path: Path) -> str:
    """Windows writes a mark of the encoding first, PowerShell 5 two bytes a letter."""
    try:
        content = path.read_bytes()
        utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return content.decode("utf-16" if utf16 else "utf-8-sig")
    except OSError as error:
        raise SettingError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingError(f"{path}: is neither UTF-8 nor UTF-16 text") from None


def _powershell(text: str, path: Path) -> dict[str, str]:
    found = {}
    for match in _ASSIGNMENT.finditer(text):
        name = (match["braced"] or match["name"] or "").upper()
        if not name:
            continue
        if match["double"] is not None:
            if name in (*NAMES, *_OTHER_NAMES) and re.search(r"(?<!`)(?:``)*\$[\w({?:]", match["double"]):
                raise SettingError(f"{path}: {name} refers to something else by $: write its value there")
            value = re.sub(
                '`(.)|""',
                lambda escape: _POWERSHELL_ESCAPES.get(escape[1], escape[1]) if escape[1] else '"',
                match["double"],
                flags=re.DOTALL,
            )
        elif match["single"] is not None:
            value = match["single"].replace("''", "'")
        else:
            value = match["bare"]
        found[name] = value
    return found


def _properties(text: str, path: Path) -> dict[str, str]:
    """Java's form. Of a login only PLAIN is taken: another mechanism needs more than a name and a password."""
    found: dict[str, str] = {}
    for line in re.sub(r"\\\n[ \t]*", "", text).split("\n"):
        pair = re.match(r"[ \t\f]*([^#!\s=:][^\s=:]*)[ \t\f]*[=: \t][ \t\f]*(.*)", line)
        if pair:
            found[pair[1]] = re.sub(r"\\(u[0-9a-fA-F]{4}|.)", _unescaped, pair[2])
    mechanism = found.get("sasl.mechanism") or found.get("sasl.mechanisms") or "PLAIN"
    protocol = found.get("security.protocol", "SASL_SSL")
    if (mechanism, protocol) != ("PLAIN", "SASL_SSL"):
        raise SettingError(
            f"{path}: {protocol} with {mechanism} cannot be taken over, only SASL_SSL with PLAIN: write "
            "AIRFLOW_CONN_KAFKA_DEFAULT into .env, as docs/configuration.md shows"
        )
    login = found.get("sasl.jaas.config", "")
    for field in ("username", "password"):
        given = re.search(rf"""\b{field}=(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)')""", login)
        if given:
            found.setdefault(f"sasl.{field}", re.sub(r"\\(.)", r"\1", given[1] or given[2] or ""))
    return found


def _unescaped(escape: re.Match[str]) -> str:
    sign = escape[1]
    return chr(int(sign[1:], 16)) if len(sign) == 5 else _JAVA_ESCAPES.get(sign, sign)
