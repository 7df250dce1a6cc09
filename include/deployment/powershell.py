"""Read variables that a PowerShell script sets to plain values.

Standard library only, from Python 3.9 on, like env_file.py.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from include.deployment.env_file import DOUBLE_QUOTES, SINGLE_QUOTES
from include.errors import SettingError

# In double quotes ` is the escape character, in single quotes there is none; a doubled quote is a literal quote.
_DOUBLE, _SINGLE = f'"{DOUBLE_QUOTES}', f"'{SINGLE_QUOTES}"
_QUOTED = (
    rf"[{_DOUBLE}](?P<double>(?:[^{_DOUBLE}`]|`.|[{_DOUBLE}]{{2}})*)[{_DOUBLE}]"
    rf"|[{_SINGLE}](?P<single>(?:[^{_SINGLE}]|[{_SINGLE}]{{2}})*)[{_SINGLE}]"
)
_HERE_STRING = rf"@[{_DOUBLE}][ \t]*\n.*?\n[{_DOUBLE}]@|@[{_SINGLE}][ \t]*\n.*?\n[{_SINGLE}]@"
_SCOPE = "(?:(?:env|global|script|local|private):)?"
# `$env:NAME = …`, `$NAME = …`, `${env:NAME} = …`, perhaps several on a line; comments follow # or are between <# #>.
_TOKEN = re.compile(
    rf"""<\#.*?\#> | \#[^\n]* | {_HERE_STRING} | (?:{_QUOTED}) | `.
    | \$ (?: \{{ {_SCOPE} (?P<braced>\w+) \}} | {_SCOPE} (?P<plain>\w+) )
      (?: [ \t]* (?P<operator> (?: [-+*/%] | \?\? )? = ) [ \t]* )?
    | (?P<command> \b
        (?: (?:Set|New)-(?:Item|ItemProperty|Content|Variable) | setx? | s[iv] | ni | SetEnvironmentVariable ) \b )
    | (?P<loose> \w+ ) (?= [ \t]* = )
    | (?P<open> [{_DOUBLE}{_SINGLE}] )""",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_VALUE = re.compile(
    rf"(?:{_QUOTED}|(?P<number>0|[1-9][0-9]*))[ \t]*(?=\n|\Z|[;}}]|(?<=[ \t{_DOUBLE}{_SINGLE}])\#|<\#)", re.DOTALL
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "0": "\0", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


def read(text: str, wanted: Collection[str], where: str) -> dict[str, str]:
    """Return the values that the script sets the wanted names to, which are in upper case.

    Raise SettingError with line and name if a wanted one cannot be read without running PowerShell: its value is an
    expression ("a" + "b", -f, a reference), a command sets it, or it is set to two values.
    """
    found: dict[str, str] = {}
    position = 0
    while match := _TOKEN.search(text, position):
        position = match.end()
        at = f"{where}, line {text.count(chr(10), 0, match.start()) + 1}"
        name = (match["braced"] or match["plain"] or match["loose"] or "").upper()
        if match["open"]:
            raise SettingError(f"{at}: a quotation mark is not closed: close it")
        if match["command"]:
            rest = text[position:].partition("\n")[0].upper()
            name = next((candidate for candidate in wanted if re.search(rf"\b{re.escape(candidate)}\b", rest)), "")
        if name not in wanted or not (match["operator"] or match["loose"] or match["command"]):
            continue
        value = _VALUE.match(text, position) if match["operator"] == "=" else None
        if not value:
            raise SettingError(f"{at}: {name} is not set to one plain quoted value: write $env:{name} = 'value'")
        plain = _plain(value, f"{at}: {name}")
        if found.setdefault(name, plain) != plain:
            raise SettingError(f"{at}: {name} is set again to another value: keep only the line that applies")
        position = value.end()
    return found


def _plain(value: re.Match[str], at: str) -> str:
    if value["single"] is not None:
        return re.sub(rf"[{_SINGLE}]([{_SINGLE}])", r"\1", value["single"])
    if value["double"] is None:
        return value["number"]
    if re.search(r"(?<!`)(?:``)*\$[\w({?:$^]", value["double"]):
        raise SettingError(f"{at} refers to another variable by $: write the value itself")
    if re.search(r"(?<!`)(?:``)*`[ue]", value["double"]):
        raise SettingError(
            f"{at} contains `u or `e, which PowerShell versions read differently: write the character itself"
        )

    def unescape(escape: re.Match[str]) -> str:
        return _ESCAPES.get(escape[1], escape[1]) if escape[1] else escape[2]

    return re.sub(rf"`(.)|[{_DOUBLE}]([{_DOUBLE}])", unescape, value["double"], flags=re.DOTALL)
