"""Write the report's attachment: all columns of the fraudulent payments, within a limit of bytes."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable

from include.report.fraud import Fraud, Number, Value, columns

# Without this mark Excel reads a CSV file in its local code page and garbles names; other programs skip it.
BOM = b"\xef\xbb\xbf"
TRACE_COLUMNS = ("source", "row", "fraud_probability")

# A spreadsheet evaluates a cell that begins with one of these characters, plain or full-width, also behind whitespace
# and invisible characters. The look-behind lets a match begin only at the first of these, so time stays linear.
_INVISIBLE = r"[\s\x00-\x20\xad\u200b-\u200f\u2060\ufeff\"]"
_FORMULA = re.compile(rf"(?<!{_INVISIBLE})({_INVISIBLE}*+)[=+\-@\uff1d\uff0b\uff0d\uff20\ufe62\ufe63\ufe66\ufe6b]")
_BREAKS = re.compile(r"[\t\r\n]")
_QUOTED = re.compile(r'[",\r\n]')
_PLAIN_NUMBER = re.compile(r"-\d+(\.\d+)?")


def cell(value: Value | int | float) -> str:
    """Return a value's cell: numbers unchanged, and an apostrophe before text that a spreadsheet would evaluate."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Number | int | float):
        return str(value)
    if _PLAIN_NUMBER.fullmatch(value):
        return value
    safe = _FORMULA.sub(_with_apostrophe, value)
    return "'" + safe if _BREAKS.match(safe) else safe


def _with_apostrophe(found: re.Match[str]) -> str:
    """Put an apostrophe where a cell begins.

    A spreadsheet that splits at semicolons or tabs ignores our quotes, so one of its cells may begin inside ours.
    """
    start, end = found.span(1)
    inner = _BREAKS.search(found[1]) or found.string[start - 1 : start] == ";"
    first = "'" if start == 0 else ""
    return first + found[1] + ("'" if inner else "") + found.string[end]


def write(frauds: Iterable[Fraud], *, mask: bool, max_bytes: int) -> tuple[bytes, int]:
    """Return the file and the number of payments in it: in the order given, each that still fits into `max_bytes`."""
    names: dict[str, None] = {}
    rows: list[tuple[list[str], dict[str, str]]] = []
    size = len(BOM) + _size(TRACE_COLUMNS)
    for fraud in frauds:
        trace = [cell(fraud.source), cell(fraud.row), cell(fraud.probability)]
        cells = {name: cell(value) for name, value in columns(fraud, mask=mask).items()}
        new = [name for name in cells if name not in names]
        # Each line has a separator or line end for each column, so a new column makes all lines longer.
        lines, width = len(rows) + 2, len(TRACE_COLUMNS) + len(names) + len(new)
        text = size + _size(map(cell, new)) + _size(trace) + _size(cells.values())
        if text + lines * (width + 1) > max_bytes:
            continue
        size = text
        names.update(dict.fromkeys(new))
        rows.append((trace, cells))
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow([*TRACE_COLUMNS, *map(cell, names)])
    writer.writerows([*trace, *(cells.get(name, "") for name in names)] for trace, cells in rows)
    return BOM + _encode(buffer.getvalue()), len(rows)


def _size(cells: Iterable[str]) -> int:
    """Return the bytes of these cells in the file, without separators."""
    return sum(len(_encode(text)) + (text.count('"') + 2 if _QUOTED.search(text) else 0) for text in cells)


def _encode(text: str) -> bytes:
    """Return the text in UTF-8, with ? for half of a surrogate pair, which JSON may hold and UTF-8 cannot encode."""
    return text.encode("utf-8", "replace")
