"""Lines of an `.env` that docker compose and a POSIX shell read alike.

Runs on a machine that has nothing but Python: standard library only, from Python 3.9 on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from include.errors import SettingError

_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=-]+")
_LINE = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*")
# What compose undoes between double quotes. A shell knows fewer: `quoted` writes only those that both know.
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def line(name: str, value: str) -> str:
    return f"{name}={quoted(name, value)}\n"


def quoted(name: str, value: str) -> str:
    """Raises SettingError, which names the variable only, for the few values that no form says to both."""
    if _PLAIN.fullmatch(value):
        return value
    if any(ord(sign) < 32 for sign in value):
        raise SettingError(f"{name}: a value with line breaks or control characters cannot stand in an .env file")
    # Between single quotes both take everything as it is, but compose takes \' for a quote.
    if "'" not in value and not value.endswith("\\"):
        return f"'{value}'"
    if "`" in value:
        raise SettingError(
            f"{name}: a value with ` and either ' or a \\ at its end is not read alike by compose and shells"
        )
    return '"' + re.sub(r'([\\"$])', r"\\\1", value) + '"'


def parse(text: str) -> dict[str, str]:
    """Names and values as compose reads them, but for references to other variables, which stay as they are written."""
    return {name: value for name, value, _ in _pieces(text) if name}


def without(text: str, names: Iterable[str]) -> str:
    """The file's text without the lines of these names."""
    gone = set(names)
    return "".join(written for name, _, written in _pieces(text) if name not in gone)


def _pieces(text: str) -> Iterator[tuple[str | None, str, str]]:
    """Each line, or what a value's quotes make of several: its name and value, if it has any, and how it is written."""
    rest = text.replace("\r\n", "\n")
    while rest:
        before, name, value = rest, None, ""
        found = _LINE.match(rest.lstrip())
        if found:
            name = found.group(1)
            value, rest = _value(rest.lstrip()[found.end() :])
        else:
            rest = rest.lstrip().partition("\n")[2]
        yield name, value, before[: len(before) - len(rest)]


def _value(text: str) -> tuple[str, str]:
    """And what comes after its line."""
    quote = text[:1]
    if quote not in ("'", '"'):
        written, _, rest = text.partition("\n")
        return written.partition(" #")[0].rstrip(), rest
    end = re.compile(rf"(?:[^\\{quote}]|\\.)*{quote}", re.DOTALL).match(text, 1)
    if not end:
        return text.partition("\n")[0], text.partition("\n")[2]
    inner, rest = text[1 : end.end() - 1], text[end.end() :].partition("\n")[2]
    if quote == "'":
        return inner.replace("\\'", "'"), rest
    return re.sub(r'\\([abfnrtv$"\\])', lambda escape: _ESCAPES.get(escape[1], escape[1]), inner), rest


def added(text: str, values: Mapping[str, str], heading: str) -> str:
    """The file's text with these lines after what was there: the last line of a name counts, for compose and shells."""
    if not values:
        return text
    lines = "".join(line(name, value) for name, value in values.items())
    before = text if not text or text.endswith("\n") else f"{text}\n"
    return f"{before}{chr(10) if before else ''}# {heading}\n{lines}"


def missing(names: Iterable[str], values: Mapping[str, str]) -> list[str]:
    """An empty value counts as none."""
    return [name for name in names if not values.get(name, "").strip()]
