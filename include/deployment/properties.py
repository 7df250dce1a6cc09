"""Read the settings of a Kafka client from a Java properties file, as Confluent Cloud provides it.

Standard library only, from Python 3.9 on, like env_file.py. javaproperties would replace 25 lines, but not the checks.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from include.deployment.env_file import TYPOGRAPHIC_QUOTES
from include.errors import SettingError

_LINE = re.compile(r"[ \t\f]*((?:[^\\#!\s=:]|\\.)(?:[^\\\s=:]|\\.)*)[ \t\f]*[=: \t][ \t\f]*(.*)", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "f": "\f"}
_JAAS = "sasl.jaas.config"


def read(text: str, wanted: Collection[str], where: str) -> dict[str, str]:
    """Return all properties, with the user name and password of a JAAS login as `sasl.username` and `sasl.password`.

    Raise SettingError for another mechanism than PLAIN, which needs more than a name and a password; and, with line
    and name, if a wanted value has quotes or a comment, which Java reads as part of the value.
    """
    found: dict[str, str] = {}
    for number, line in _lines(text):
        pair = _LINE.match(line)
        if not pair:
            continue
        name, written = _unescaped(pair[1]), _without_trailing_spaces(pair[2])
        at = f"{where}, line {number}"
        if name == "export":
            raise SettingError(
                f"{at}: `export` belongs to shell scripts, not to a properties file: rename the file to .env"
            )
        if name in wanted and re.match(f"[\"'{TYPOGRAPHIC_QUOTES}]", written):
            raise SettingError(f"{at}: {name} has its value in quotes, which Java reads as part of it: remove them")
        if (name in wanted or name == _JAAS) and re.search(r"[ \t]#(?![^\"]*\")", written):
            raise SettingError(
                f"{at}: {name} has a comment after its value, which Java reads as part of it: move it to its own line"
            )
        found[name] = _unescaped(written)
        if name == _JAAS:
            found = {**_login(found[name], at), **found}
    mechanism = found.get("sasl.mechanism") or found.get("sasl.mechanisms") or "PLAIN"
    protocol = found.get("security.protocol", "SASL_SSL")
    if (mechanism, protocol) != ("PLAIN", "SASL_SSL"):
        raise SettingError(
            f"{where}: {protocol} with {mechanism} cannot be copied, only SASL_SSL with PLAIN: write "
            "AIRFLOW_CONN_KAFKA_DEFAULT into .env, as docs/configuration.md shows"
        )
    return found


def _lines(text: str) -> list[tuple[int, str]]:
    """Return the lines with their numbers, each joined with the next if it ends with a backslash."""
    lines: list[tuple[int, str]] = []
    continues = False
    for number, line in enumerate(text.split("\n"), 1):
        if continues:
            lines[-1] = (lines[-1][0], lines[-1][1] + line.lstrip(" \t\f"))
        else:
            lines.append((number, line))
        continues = not lines[-1][1].lstrip().startswith(("#", "!")) and bool(re.search(r"(?<!\\)(?:\\\\)*\\\Z", line))
        if continues:
            lines[-1] = (lines[-1][0], lines[-1][1][:-1])
    return lines


def _without_trailing_spaces(written: str) -> str:
    """Return the value without trailing spaces. Java keeps them, but no key ends with an unescaped one."""
    kept = re.match(r"(?:\\.|[^\\])*?(?=[ \t\f]*\Z)", written, re.DOTALL)
    return kept[0] if kept else written


def _login(jaas: str, at: str) -> dict[str, str]:
    """Return the user name and password in the value of sasl.jaas.config."""
    login = {}
    for field in ("username", "password"):
        given = re.search(rf"""\b{field}\s*=\s*(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|(\w+)(?=[\s;]|\Z))""", jaas)
        if given:
            login[f"sasl.{field}"] = re.sub(r"\\(.)", r"\1", next(text for text in given.groups() if text is not None))
        elif re.search(rf"\b{field}\s*=", jaas):
            raise SettingError(f'{at}: {_JAAS} has a {field} without quotes: put it between " and "')
    return login


def _unescaped(written: str) -> str:
    def unescape(escape: re.Match[str]) -> str:
        code = escape[1]
        return chr(int(code[1:], 16)) if len(code) == 5 else _ESCAPES.get(code, code)

    return re.sub(r"\\(u[0-9a-fA-F]{4}|.)", unescape, written, flags=re.DOTALL)
