"""Read variables from a shell script or another program's `.env`, and reject values that could be read in two ways.

In a shell script, a value must mean the same to a shell and to docker compose. A file that holds only NAME=value was
read by compose or a similar program, so there compose's rules apply: a shell would end the value `a&b` after the `a`.

Standard library only, from Python 3.9 on, like env_file.py.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from include.deployment.env_file import TYPOGRAPHIC_QUOTES
from include.errors import SettingError

_BLANKS = r"[ \t]*"
_LINE = re.compile(
    rf"{_BLANKS}(?P<export>export[ \t]+)?(?P<name>\w+)(?P<sign>{_BLANKS}[=:]{_BLANKS})(?P<value>.*)", re.ASCII
)
# A line such as `export A B`, which sets nothing.
_EXPORT_ONLY = re.compile(rf"{_BLANKS}export(?:[ \t]+\w+)+{_BLANKS}(?:#.*)?")
_QUOTES = "\"'" + TYPOGRAPHIC_QUOTES
# This matches only escapes that a shell and compose both process, and no character that only one of them interprets.
# Compose strips more kinds of white space than a shell does, such as the no-break space.
_VALUE = re.compile(
    rf"""(?: "(?P<double>(?:[^"\\$`]|\\["\\$])*)" | '(?P<single>[^']*)(?<!\\)' ) [ \t]* (?: (?<=[ \t])\#.* )?
    | (?: (?P<bare>[^\s{_QUOTES}`\\$\#] (?:[^\s{_QUOTES}`\\$]|[ \t]+(?=[^\s\#]))* ) (?:[ \t]*[ ]\#.*)? )?
    [ \t]*""",
    re.VERBOSE,
)
# After an unquoted value: the end of a command, or another assignment or command on the same line.
_SECOND_COMMAND = re.compile(r";\s*\Z|;\s*(?:export\s+)?\w+=|&&|\|\||\s\w+=")
# A shell ends an unquoted value at these characters, or expands ~ to a home directory.
_SHELL_SPECIAL = re.compile(r"[ \t&|;<>()]|(?:\A|:)~")
# After `export`, bash expands {a,b} and {1..3} to several values.
_BRACE_EXPANSION = re.compile(r"\{.*(?:,|\.\.).*\}")
_SHELL_SUFFIX = re.compile(r"\.(?:sh|bash|dash|ksh|zsh)\Z", re.IGNORECASE)
# The start of a here-document, whose lines are text even if they look like assignments.
_HERE_DOCUMENT = re.compile(r"^[^#\n]*<<-?\s*[\w\"'\\]", re.MULTILINE)
# A line that a file of NAME=value may hold: an assignment, a name alone, a comment or nothing.
_ENV_FILE_LINE = re.compile(rf"{_BLANKS}(?:#(?!!).*|(?!export\s)[\w.\-\[\]]+{_BLANKS}(?:[=:].*)?)?\s*")
# A quoted value, which may span lines that look like assignments.
_QUOTED = re.compile(
    rf"""^(?P<head>{_BLANKS}(?:export[ \t]+)?(?P<name>[\w.\-\[\]]+){_BLANKS}[=:]{_BLANKS})
    (?: "(?:[^"\\]|\\.)*" | '[^']*' )""",
    re.VERBOSE | re.MULTILINE | re.DOTALL,
)


def read(text: str, wanted: Collection[str], where: str) -> dict[str, str]:
    """Return the values of the wanted names, and ignore all others. `where` is the file's name, for errors.

    Raise SettingError, with line and name, if a wanted name is set in a way that shells and compose read differently.
    """
    found: dict[str, str] = {}
    wanted_name = re.compile(rf"(?<![\w$.{{])(?:{'|'.join(map(re.escape, wanted))})(?!\w)")
    shell_evidence = _shell_evidence(text, where)
    text = _QUOTED.sub(lambda quoted: quoted[0] if quoted["name"] in wanted else _without_value(quoted), text)
    has_here_document = bool(shell_evidence and _HERE_DOCUMENT.search(text))
    for number, line in enumerate(text.split("\n"), 1):
        pair = _LINE.fullmatch(line)
        value = _VALUE.fullmatch(pair["value"]) if pair and pair["name"] in wanted else None
        differs = bool(shell_evidence and pair and value and _differs_in_shell(pair, value["bare"] or ""))
        differs |= has_here_document
        if pair and value and not differs and not _SECOND_COMMAND.search(value["bare"] or ""):
            name, plain = pair["name"], next((group for group in value.groups() if group is not None), "")
            if value["double"]:
                plain = re.sub(r"\\(.)", r"\1", plain)
            if found.setdefault(name, plain) != plain:
                raise SettingError(
                    f"{where}, line {number}: {name} is set again to another value: keep only the line that applies"
                )
            continue
        mentioned = wanted_name.search(line)
        if mentioned and not line.lstrip().startswith("#") and not _EXPORT_ONLY.fullmatch(line):
            reason = (
                f": this is a shell script ({shell_evidence}), and a shell allows no space around =, nor unquoted "
                "spaces, ~, {a,b} or any of & | ; < > ( )"
                if differs
                else ""
            )
            raise SettingError(
                f"{where}, line {number}: {mentioned[0]} is set in a way that shells and docker compose read "
                f"differently{reason}. Write only {mentioned[0]}='value' on that line"
            )
    return found


def _differs_in_shell(pair: re.Match[str], bare: str) -> bool:
    """Return whether a shell reads another value than compose, or none. `bare` is the unquoted value."""
    is_assignment = pair["sign"] == "=" or (pair["sign"].startswith("=") and not pair["value"])
    return not is_assignment or bool(_SHELL_SPECIAL.search(bare) or (pair["export"] and _BRACE_EXPANSION.search(bare)))


def _without_value(quoted: re.Match[str]) -> str:
    """Return the assignment without its value, with the same number of lines."""
    return quoted["head"] + "\n" * quoted[0].count("\n")


def _shell_evidence(text: str, where: str) -> str:
    """Return why the file is a shell script, or an empty text if it is none."""
    if suffix := _SHELL_SUFFIX.search(where):
        return f"its name ends with {suffix[0]}"
    for number, line in enumerate(_QUOTED.sub(_without_value, text).split("\n"), 1):
        if not _ENV_FILE_LINE.fullmatch(line):
            return f"line {number} is not NAME=value"
    return ""
