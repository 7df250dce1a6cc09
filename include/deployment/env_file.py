"""Read and write lines of an `.env` that docker compose and a POSIX shell read alike.

It runs on a machine that has only Python: standard library only, from Python 3.9 on. python-dotenv 1.2 could not
replace it: it rejects only six of the 21 ambiguous lines in tests/deployment/test_env_file.py and returns a value for
the others, and it reads `NAME: value`, `$$`, `$NAME` and octal escapes differently from compose.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping

from include.errors import SettingError

_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=-]+")
_BLANKS = r"[^\S\n]*"
_LINE = re.compile(rf"(?:export[^\S\n]+)?(?!export(?:\s|\Z))([\w.\-\[\]]+){_BLANKS}(?:[=:]({_BLANKS})|(?=\n|\Z))")
# Escapes that compose processes between double quotes. A shell processes fewer: `quoted` writes only the common ones.
_ESCAPE = re.compile(r'\\(?:([abfnrtv"\\])|0([0-3][0-7]{2})|(\$))')
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_REFERENCE = re.compile(
    r"""\$(?: (?P<dollar>\$) | (?P<plain>[A-Za-z_]\w*) | \{(?P<braced>[A-Za-z_]\w*)\}
    | \{[A-Za-z_]\w*:?[-+?](?:[^{}]|\{[^{}]*\})*\} | (?P<open>\{) )""",
    re.ASCII | re.VERBOSE,
)
# The placeholders of a template: {{ CLUSTER_API_KEY }}, <API_KEY>.
_PLACEHOLDER = re.compile(r"\{\{.*?\}\}|\A\s*<[A-Za-z][\w -]*>\s*\Z", re.DOTALL)
# Word processors replace " and ' with these characters. PowerShell treats them as " and '.
DOUBLE_QUOTES, SINGLE_QUOTES = "\u201c\u201d\u201e", "\u2018\u2019\u201a\u201b"
TYPOGRAPHIC_QUOTES = DOUBLE_QUOTES + SINGLE_QUOTES + "\u201f\u00ab\u00bb"


def env_line(name: str, value: str) -> str:
    """Return the line that sets a variable. Raise SettingError as `quoted` does."""
    return f"{name}={quoted(name, value)}\n"


def quoted(name: str, value: str) -> str:
    """Return the value, quoted so that compose and shells read it alike.

    Raise SettingError, which names only the variable, for the few values that no quoting makes unambiguous.
    """
    if _PLAIN.fullmatch(value):
        return value
    if any(ord(character) < 32 for character in value):
        raise SettingError(
            f"{name}: an .env file cannot hold a value with line breaks or control characters: remove them"
        )
    # Between single quotes both take everything literally, except that compose takes \' for a quote.
    if "'" not in value and not value.endswith("\\"):
        return f"'{value}'"
    if "`" in value:
        raise SettingError(
            f"{name}: compose and shells read a value with ` and either ' or a \\ at its end differently: use a value "
            "without `"
        )
    return '"' + re.sub(r'([\\"$])', r"\\\1", value) + '"'


def is_placeholder(value: str) -> bool:
    """Return whether the value contains a placeholder such as {{ NAME }}, or is one such as <NAME>."""
    return bool(_PLACEHOLDER.search(value))


def parse(text: str, where: str = ".env") -> dict[str, str]:
    """Return names and values as compose reads them; `${NAME:-…}` and similar references are not replaced.

    Raise SettingError for a line that compose rejects or probably reads differently than intended. The error has
    `where`, the line number and the variable, never a value.
    """
    return {name: value for name, value, _ in _assignments(text, where) if name is not None and value is not None}


def without_names(text: str, names: Iterable[str]) -> str:
    """Return the file's text without the lines of these names."""
    removed = set(names)
    return "".join(line for name, _, line in _assignments(text) if name not in removed)


def _assignments(text: str, where: str = ".env") -> Iterator[tuple[str | None, str | None, str]]:
    """Yield name, value and text of each line, or of the lines that a quoted value spans.

    Blank lines and comments have no name. A name alone has no value: compose takes its value from the environment.
    """
    rest, number, known = text.replace("\r\n", "\n"), 1, dict[str, str]()
    while rest:
        before, name, value = rest, None, None
        line = rest.lstrip()
        at = f"{where}, line {number + rest[: len(rest) - len(line)].count(chr(10))}"
        assignment = _LINE.match(line)
        if not line or line.startswith("#"):
            rest = line.partition("\n")[2]
        elif assignment:
            name = assignment[1]
            value, rest = _value(line[assignment.end() :], f"{at}: {name}", assignment[2], known)
        else:
            raise SettingError(f"{at}: docker compose cannot read it: give NAME=value, or # before a comment")
        consumed = before[: len(before) - len(rest)]
        number += consumed.count("\n")
        if name is not None and value is not None:
            known[name] = value
        yield name, value, consumed


def _value(text: str, at: str, blanks: str | None, known: Mapping[str, str]) -> tuple[str | None, str]:
    """Return the value at the start of `text`, and the text after its line.

    `blanks` is the white space before the value, None if the name has no value.
    """
    quote = text[:1]
    if blanks is None:
        return None, text.partition("\n")[2]
    if quote in ("'", '"'):
        end = re.compile(rf"(?:[^\\{quote}]|\\.)*{quote}", re.DOTALL).match(text, 1)
        if not end:
            raise SettingError(f"{at}: the quotation mark before the value is not closed: close it")
        inner, (after, _, rest) = text[1 : end.end() - 1], text[end.end() :].partition("\n")
        if after.strip() and not re.match(r"\s+#", after):
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
        if value and value[0] in TYPOGRAPHIC_QUOTES:
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
    """Return the text with a heading and lines for these values appended.

    They override earlier lines of the same names, because compose and shells use the last one.
    """
    if not values:
        return text
    lines = "".join(env_line(name, value) for name, value in values.items())
    before = text if not text or text.endswith("\n") else f"{text}\n"
    return f"{before}{chr(10) if before else ''}# {heading}\n{lines}"


def missing_names(names: Iterable[str], values: Mapping[str, str]) -> list[str]:
    """Return the names that have no value or an empty one."""
    return [name for name in names if not values.get(name, "").strip()]
