"""Read variables from a shell script or another program's `.env`, as far as shells and docker compose agree on them.

In a file that is no shell script, docker compose alone decides where an unquoted value ends: a shell would end `a&b`
after the `a`, but a file that holds only NAME=value was read by compose or a similar program.

Standard library only, from Python 3.9 on, like env_file.py.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from include.deployment.env_file import TYPOGRAPHIC
from include.errors import SettingError

_BLANKS = r"[ \t]*"
_LINE = re.compile(
    rf"{_BLANKS}(?P<export>export[ \t]+)?(?P<name>\w+)(?P<sign>{_BLANKS}[=:]{_BLANKS})(?P<value>.*)", re.ASCII
)
_PASSED_ON = re.compile(rf"{_BLANKS}export(?:[ \t]+\w+)+{_BLANKS}(?:#.*)?")
# Only escapes that a shell and compose both read, and no sign that only one of them interprets. Compose strips more
# kinds of white space than a shell, such as the no-break space.
_QUOTES = "\"'" + TYPOGRAPHIC
_VALUE = re.compile(
    rf"""(?: "(?P<double>(?:[^"\\$`]|\\["\\$])*)" | '(?P<single>[^']*)(?<!\\)' ) [ \t]* (?: (?<=[ \t])\#.* )?
    | (?: (?P<bare>[^\s{_QUOTES}`\\$\#] (?:[^\s{_QUOTES}`\\$]|[ \t]+(?=[^\s\#]))* ) (?:[ \t]*[ ]\#.*)? )?
    [ \t]*""",
    re.VERBOSE,
)
# A shell ends an unquoted value here, or begins another assignment.
_MORE = re.compile(r";\s*\Z|;\s*(?:export\s+)?\w+=|&&|\|\||\s\w+=")
# A shell script ends an unquoted value here, or expands ~ to a home directory.
_ENDS = re.compile(r"[ \t&|;<>()]|(?:\A|:)~")
# bash expands this to several values after `export`.
_SEVERAL = re.compile(r"\{.*(?:,|\.\.).*\}")
_SCRIPT_NAME = re.compile(r"\.(?:sh|bash|dash|ksh|zsh)\Z", re.IGNORECASE)
# The lines of a here-document are text, even if they look like assignments.
_DOCUMENT = re.compile(r"^[^#\n]*<<-?\s*[\w\"'\\]", re.MULTILINE)
# A line of a file that holds only NAME=value.
_NO_SCRIPT = re.compile(rf"{_BLANKS}(?:#(?!!).*|(?!export\s)[\w.\-\[\]]+{_BLANKS}(?:[=:].*)?)?\s*")
# A quoted value may span lines that look like assignments.
_QUOTED = re.compile(
    rf"""^(?P<head>{_BLANKS}(?:export[ \t]+)?(?P<name>[\w.\-\[\]]+){_BLANKS}[=:]{_BLANKS})
    (?: "(?:[^"\\]|\\.)*" | '[^']*' )""",
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)


def read(text: str, wanted: Collection[str], where: str) -> dict[str, str]:
    """Return the values of the wanted names; other lines are ignored.

    Raises SettingError, with line and name, if a wanted one is set in a way that shells and compose read differently.
    """
    found: dict[str, str] = {}
    names = re.compile(rf"(?<![\w$.{{])(?:{'|'.join(map(re.escape, wanted))})(?!\w)")
    script = _script(text, where)
    text = _QUOTED.sub(lambda quoted: quoted[0] if quoted["name"] in wanted else _without_value(quoted), text)
    has_document = bool(script and _DOCUMENT.search(text))
    for number, line in enumerate(text.split("\n"), 1):
        pair = _LINE.fullmatch(line)
        value = _VALUE.fullmatch(pair["value"]) if pair and pair["name"] in wanted else None
        differs = bool(script and pair and value and _differs_in_scripts(pair, value["bare"] or ""))
        differs |= has_document
        if pair and value and not differs and not _MORE.search(value["bare"] or ""):
            name, plain = pair["name"], next((text for text in value.groups() if text is not None), "")
            if value["double"]:
                plain = re.sub(r"\\(.)", r"\1", plain)
            if found.setdefault(name, plain) != plain:
                raise SettingError(
                    f"{where}, line {number}: {name} is set again to another value: keep only the line that applies"
                )
            continue
        mentioned = names.search(line)
        if mentioned and not line.lstrip().startswith("#") and not _PASSED_ON.fullmatch(line):
            because = (
                f": this is a shell script ({script}), and a shell allows no space around =, nor unquoted spaces, "
                "~, {a,b} or any of & | ; < > ( )"
                if differs
                else ""
            )
            raise SettingError(
                f"{where}, line {number}: {mentioned[0]} is set in a way that shells and docker compose read "
                f"differently{because}. Write only {mentioned[0]}='value' on that line"
            )
    return found


def _differs_in_scripts(pair: re.Match[str], bare: str) -> bool:
    """Whether a shell reads another value, or none, where compose reads this one."""
    is_assignment = pair["sign"] == "=" or (pair["sign"].startswith("=") and not pair["value"])
    return not is_assignment or bool(_ENDS.search(bare) or (pair["export"] and _SEVERAL.search(bare)))


def _without_value(quoted: re.Match[str]) -> str:
    """Return the assignment without its value, in as many lines."""
    return quoted["head"] + "\n" * quoted[0].count("\n")


def _script(text: str, where: str) -> str:
    """Return what makes the file a shell script; empty where nothing does."""
    if ending := _SCRIPT_NAME.search(where):
        return f"its name ends with {ending[0]}"
    plain = _QUOTED.sub(_without_value, text)
    lines = enumerate(plain.split("\n"), 1)
    return next((f"line {number} is a shell's" for number, line in lines if not _NO_SCRIPT.fullmatch(line)), "")
