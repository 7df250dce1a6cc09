"""Read and write lines of an `.env` that docker compose and a POSIX shell read alike.

It runs on a machine that has only Python: standard library only, from Python 3.9 on. python-dotenv 1.2 would not do
either: of the 21 ambiguous lines in tests/deployment/test_env_file.py it refuses six and gives the others a value, and
it reads `NAME: value`, `$$`, `$NAME` and octal escapes otherwise than compose.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping

from include.errors import SettingError

_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=-]+")
_BLANKS = r"[^\S\n]*"
_LINE = re.compile(rf"(?:export[^\S\n]+)?(?!export(?:\s|\Z))([\w.\-\[\]]+){_BLANKS}(?:[=:]({_BLANKS})|(?=\n|\Z))")
# Escapes that compose reads between double quotes. A shell knows fewer: `quoted` writes only those that both know.
_ESCAPE = re.compile(r'\\(?:([abfnrtv"\\])|0([0-3][0-7]{2})|(\$))')
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_REFERENCE = re.compile(
    r"""\$(?: (?P<dollar>\$) | (?P<plain>[A-Za-z_]\w*) | \{(?P<braced>[A-Za-z_]\w*)\}
    | \{[A-Za-z_]\w*:?[-+?](?:[^{}]|\{[^{}]*\})*\} | (?P<open>\{) )""",
    re.ASCII | re.VERBOSE,
)
# A template that is not filled in yet: {{ CLUSTER_API_KEY }}, <API_KEY>.
_PLACEHOLDER = re.compile(r"\{\{.*?\}\}|\A\s*<[A-Za-z][\w -]*>\s*\Z", re.DOTALL)
# Word processors replace " and ' by these. PowerShell reads them like the plain ones.
DOUBLE_QUOTES, SINGLE_QUOTES = "\u201c\u201d\u201e", "\u2018\u2019\u201a\u201b"
TYPOGRAPHIC = DOUBLE_QUOTES + SINGLE_QUOTES + "\u201f\u00ab\u00bb"


def env_line(name: str, value: str) -> str:
    """Return the line that sets a variable. Raises SettingError as `quoted`."""
    return f"{name}={quoted(name, value)}\n"


def quoted(name: str, value: str) -> str:
    """Return the value as compose and shells read it alike.

    Raises SettingError, which names only the variable, for the few values that no quoting makes unambiguous.
    """
    if _PLAIN.fullmatch(value):
        return value
    if any(ord(sign) < 32 for sign in value):
        raise SettingError(f"{name}: an .env file cannot hold a value with line breaks or control characters")
    # Between single quotes both read everything literally, except that compose reads \' as a quote.
    if "'" not in value and not value.endswith("\\"):
        return f"'{value}'"
    if "`" in value:
        raise SettingError(
            f"{name}: compose and shells read a value with ` and either ' or a \\ at its end differently"
        )
    return '"' + re.sub(r'([\\"$])', r"\\\1", value) + '"'


def is_placeholder(value: str) -> bool:
    """Return whether the value is part of a template that is not filled in."""
    return bool(_PLACEHOLDER.search(value))


def parse(text: str, where: str = ".env") -> dict[str, str]:
    """Return names and values as compose reads them; `${NAME:-…}` and similar references stay as they are written.

    Raises SettingError for a line that compose rejects or probably reads otherwise than meant. The error has `where`,
    the line number and the variable, never a value.
    """
    return {name: value for name, value, _ in _assignments(text, where) if name is not None and value is not None}


def without_names(text: str, names: Iterable[str]) -> str:
    """Return the file's text without the lines of these names."""
    removed = set(names)
    return "".join(written for name, _, written in _assignments(text) if name not in removed)


def _assignments(text: str, where: str = ".env") -> Iterator[tuple[str | None, str | None, str]]:
    """Yield the name, the value and the text of each line, or of several that one quoted value spans.

    Blank lines and comments have no name. A name alone has no value: compose takes that from the environment.
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
    """Return the value that `text` begins with, and the text after its line."""
    quote = text[:1]
    if blanks is None:
        return None, text.partition("\n")[2]
    if quote in ("'", '"'):
        end = re.compile(rf"(?:[^\\{quote}]|\\.)*{quote}", re.DOTALL).match(text, 1)
        if not end:
            raise SettingError(f"{at}: the quotation mark before the value is not closed: close it")
        inner, (behind, _, rest) = text[1 : end.end() - 1], text[end.end() :].partition("\n")
        if behind.strip() and not re.match(r"\s+#", behind):
            raise SettingError(
                f"{at}: text follows the closing quotation mark, which compose and shells read differently: put the "
                "whole value between one pair of quotes, or a space before a comment"
            )
        value = inner.replace("\\'", "'") if quote == "'" else _expanded(_ESCAPE.sub(_unescaped, inner), at, known)
    else:
        written, _, rest = text.partition("\n")
        if (blanks and written.startswith("#")) or re.search(r"[^\S ]#", written.partition(" #")[0]):
            raise SettingError(
                f"{at}: docker compose reads the comment as part of the value: move it to a separate line"
            )
        value = _expanded(written.partition(" #")[0].rstrip(), at, known)
        if value and value[0] in TYPOGRAPHIC:
            raise SettingError(f"{at}: the value begins with a typographic quotation mark: write \" or ' instead")
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
    def replacement(reference: re.Match[str]) -> str:
        if reference["dollar"]:
            return "$"
        if reference["open"]:
            raise SettingError(f"{at}: contains ${{ without a name and }}: write the value between single quotes")
        name = reference["plain"] or reference["braced"]
        found = os.environ.get(name, known.get(name)) if name else reference[0]
        if found is None:
            raise SettingError(
                f"{at}: refers to ${name}, which no line before it sets: for a literal $, write the value between "
                "single quotes"
            )
        return found

    return _REFERENCE.sub(replacement, value)


def with_lines(text: str, values: Mapping[str, str], heading: str) -> str:
    """Return the text followed by a heading and lines for these values.

    For compose and shells the last line of a name counts.
    """
    if not values:
        return text
    lines = "".join(env_line(name, value) for name, value in values.items())
    before = text if not text or text.endswith("\n") else f"{text}\n"
    return f"{before}{chr(10) if before else ''}# {heading}\n{lines}"


def missing_names(names: Iterable[str], values: Mapping[str, str]) -> list[str]:
    """Return the names that have no value or an empty one."""
    return [name for name in names if not values.get(name, "").strip()]
