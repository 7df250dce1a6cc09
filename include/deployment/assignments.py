"""Read variables from a shell script or another program's `.env`, as far as shells and docker compose agree on them.

Standard library only, from Python 3.9 on, as env_file.py.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from include.deployment.env_file import TYPOGRAPHIC
from include.errors import SettingError

_BLANKS = r"[^\S\n]*"
_LINE = re.compile(rf"{_BLANKS}(?:export[^\S\n]+)?(\w+){_BLANKS}[=:]{_BLANKS}(.*)", re.ASCII)
_PASSED_ON = re.compile(rf"{_BLANKS}export(?:[^\S\n]+\w+)+{_BLANKS}(?:#.*)?")
# Escapes that a shell and compose both undo, and no mark that one of them reads and the other does not.
_QUOTES = "\"'" + TYPOGRAPHIC
_VALUE = re.compile(
    rf"""(?: "(?P<double>(?:[^"\\$`]|\\["\\$])*)" | '(?P<single>[^']*)(?<!\\)' ) [^\S\n]* (?: (?<=\s)\#.* )?
    | (?: (?P<bare>[^\s{_QUOTES}`\\$\#] (?:[^\s{_QUOTES}`\\$]|[^\S\n]+(?=[^\s\#]))* ) (?:[^\S\n]*[ ]\#.*)? )?
    [^\S\n]*""",
    re.VERBOSE,
)
# Where a shell ends an unquoted value, or begins another assignment.
_MORE = re.compile(r";\s*\Z|;\s*(?:export\s+)?\w+=|&&|\|\||\s\w+=")


def read(text: str, wanted: Collection[str], where: str) -> dict[str, str]:
    """Return the values of the wanted names; what else the file does is passed over.

    Raises SettingError, by line and name, where a wanted one is set in a way that shells and compose do not read alike.
    """
    found: dict[str, str] = {}
    names = re.compile(rf"(?<![\w$.{{])(?:{'|'.join(map(re.escape, wanted))})(?!\w)")
    for number, line in enumerate(text.split("\n"), 1):
        pair = _LINE.fullmatch(line)
        value = _VALUE.fullmatch(pair[2]) if pair and pair[1] in wanted else None
        if pair and value and not _MORE.search(value["bare"] or ""):
            plain = next((text for text in value.groups() if text is not None), "")
            if value["double"]:
                plain = re.sub(r"\\(.)", r"\1", plain)
            if found.setdefault(pair[1], plain) != plain:
                raise SettingError(
                    f"{where}, line {number}: {pair[1]} is set again, to another value: keep only the line that applies"
                )
            continue
        mentioned = names.search(line)
        if mentioned and not line.lstrip().startswith("#") and not _PASSED_ON.fullmatch(line):
            raise SettingError(
                f"{where}, line {number}: {mentioned[0]} is set in a way that shells and docker compose read "
                f"differently: write {mentioned[0]}='value', and nothing else, into a line of its own"
            )
    return found
