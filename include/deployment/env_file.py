"""Lines of an `.env` that docker compose and a POSIX shell read alike.

Runs on a machine that has nothing but Python: standard library only, from Python 3.9 on. python-dotenv would not do
either: it reads other values than compose does (a comment behind an empty value, `\\'`, `NAME: value`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping

from include.errors import SettingError

_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=-]+")
_BLANKS = r"[^\S\n]*"
_LINE = re.compile(rf"(?:export[^\S\n]+)?(?!export(?:\s|\Z))([\w.\-\[\]]+){_BLANKS}(?:[=:]({_BLANKS})|(?=\n|\Z))")
# What compose undoes between double quotes. A shell knows fewer: `quoted` writes only those that both know.
_ESCAPE = re.compile(r'\\(?:([abfnrtv"\\])|0([0-3][0-7]{2})|(\$))')
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_REFERENCE = re.compile(
    r"""\$(?: (?P<dollar>\$) | (?P<plain>[A-Za-z_]\w*) | \{(?P<braced>[A-Za-z_]\w*)\}
    | \{[A-Za-z_]\w*:?[-+?](?:[^{}]|\{[^{}]*\})*\} | (?P<open>\{) )""",
    re.ASCII | re.VERBOSE,
)
# What stands in a file that nobody has filled in yet: {{ CLUSTER_API_KEY }}, <API_KEY>.
_PLACEHOLDER = re.compile(r"\{\{.*?\}\}|\A\s*<[A-Za-z][\w -]*>\s*\Z", re.DOTALL)
# What word processors make of " and of '. PowerShell takes these for the plain ones.
DOUBLE_QUOTES, SINGLE_QUOTES = "\u201c\u201d\u201e", "\u2018\u2019\u201a\u201b"
TYPOGRAPHIC = DOUBLE_QUOTES + SINGLE_QUOTES + "\u201f\u00ab\u00bb"


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


def is_placeholder(value: str) -> bool:
    return bool(_PLACEHOLDER.search(value))


def parse(text: str, where: str = ".env") -> dict[str, str]:
    """Return names and values as compose reads them; of `${NAME:-…}` and its like, as they are written.

    Raise SettingError for a line that compose rejects or would read differently from what the author meant: it names
    `where`, the line's number and the variable, and never quotes a value.
    """
    return {name: value for name, value, _ in _pieces(text, where) if name is not None and value is not None}


def without(text: str, names: Iterable[str]) -> str:
    """Return the file's text without the lines of these names."""
    gone = set(names)
    return "".join(written for name, _, written in _pieces(text) if name not in gone)


def _pieces(text: str, where: str = ".env") -> Iterator[tuple[str | None, str | None, str]]:
    """Yield each line, or what a value's quotes make of several: its name and value, if any, and how it is written.

    A name alone has no value: it is the environment's.
    """
    rest, number, known = text.replace("\r\n", "\n"), 1, dict[str, str]()
    while rest:
        before, name, value = rest, None, None
        start = rest.lstrip()
        at = f"{where}, line {number + rest[: len(rest) - len(start)].count(chr(10))}"
        found = _LINE.match(start)
        if not start or start.startswith("#"):
            rest = start.partition("\n")[2]
        elif found:
            name = found[1]
            value, rest = _value(start[found.end() :], f"{at}: {name}", found[2], known)
        else:
            raise SettingError(f"{at}: docker compose cannot read it: give NAME=value, or # before a comment")
        written = before[: len(before) - len(rest)]
        number += written.count("\n")
        if name is not None and value is not None:
            known[name] = value
        yield name, value, written


def _value(text: str, at: str, blanks: str | None, known: Mapping[str, str]) -> tuple[str | None, str]:
    """And what comes after its line."""
    quote = text[:1]
    if blanks is None:
        return None, text.partition("\n")[2]
    if quote in ("'", '"'):
        end = re.compile(rf"(?:[^\\{quote}]|\\.)*{quote}", re.DOTALL).match(text, 1)
        if not end:
            raise SettingError(f"{at}: the quotation mark before its value is not closed")
        inner, (behind, _, rest) = text[1 : end.end() - 1], text[end.end() :].partition("\n")
        if behind.strip() and not re.match(r"\s+#", behind):
            raise SettingError(
                f"{at}: text follows the closing quotation mark, which compose and shells read differently. "
                "Put the whole value between one pair of quotes, or a blank before a comment"
            )
        value = inner.replace("\\'", "'") if quote == "'" else _expanded(_ESCAPE.sub(_unescaped, inner), at, known)
    else:
        written, _, rest = text.partition("\n")
        if (blanks and written.startswith("#")) or re.search(r"[^\S ]#", written.partition(" #")[0]):
            raise SettingError(
                f"{at}: docker compose takes the comment for a part of its value: put it into a line of its own"
            )
        value = _expanded(written.partition(" #")[0].rstrip(), at, known)
        if value and value[0] in TYPOGRAPHIC:
            raise SettingError(f"{at}: its value begins with a typographic quotation mark: write \" or ' instead")
    if is_placeholder(value):
        raise SettingError(
            f"{at}: still contains a placeholder such as {{{{ NAME }}}} or <NAME>: replace it with the value"
        )
    return value, rest


def _unescaped(escape: re.Match[str]) -> str:
    if escape[3]:
        return "$$"
    return chr(int(escape[2], 8)) if escape[2] else _ESCAPES.get(escape[1], escape[1])


def _expanded(value: str, at: str, known: Mapping[str, str]) -> str:
    def put(reference: re.Match[str]) -> str:
        if reference["dollar"]:
            return "$"
        if reference["open"]:
            raise SettingError(f"{at}: holds ${{ without a name and }}: write the value between single quotes")
        name = reference["plain"] or reference["braced"]
        found = os.environ.get(name, known.get(name)) if name else reference[0]
        if found is None:
            raise SettingError(
                f"{at}: refers to ${name}, which no line before it sets: for a $ itself, write the value between "
                "single quotes"
            )
        return found

    return _REFERENCE.sub(put, value)


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
