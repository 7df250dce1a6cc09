"""Reads a CSV file of verdicts: the attachment of a report, or any file with the columns `trans_num` and `verdict`.

Spreadsheets save it with semicolons or tabs, in their machine's encoding, and write true and false in their own
language.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

from include.errors import ConfirmationError
from include.report.csv_attachment import cell
from include.reviews.payment_source import PaymentSource

TRANS_NUM = "trans_num"
VERDICT = "verdict"
SOURCE_HEADERS = ("source", "row")
"""CSV columns that identify one of several payments with the same trans_num. An invalid source counts as none."""
_FRAUD = "fraud fraudulent true yes y 1 1.0 wahr ja vrai oui verdadero sí si vero verdadeiro sim waar prawda tak"
_GENUINE = "genuine legit legitimate false no n 0 0.0 falsch nein faux non falso não nao onwaar nee fałsz nie"
_WORDS = dict.fromkeys(_FRAUD.split(), True) | dict.fromkeys([*_GENUINE.split(), "not fraud", "no fraud"], False)
_SEPARATORS = ",;\t|"
_BOMS = (
    (b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"),
)  # fmt: skip
# Excel names the separator in a line before the header.
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?(?:\r\n|\r|\n)')
# csv_attachment.cell() writes it before a character that would make a spreadsheet evaluate the cell.
_APOSTROPHE = re.compile(r"'(?=\W)")
_MAX_TRANS_NUM_LENGTH = 1_000


@dataclass(frozen=True)
class Verdict:
    """A line with a verdict.

    `trans_nums` are the values that its cell may stand for, the most likely one first. `source` is None without one.
    """

    line: int
    trans_nums: tuple[str, ...]
    fraud: bool
    source: PaymentSource | None = None


@dataclass(frozen=True)
class BadLine:
    """An invalid line.

    `why` does not quote it: if columns are mixed up, a card number may be in the place of the verdict.
    """

    line: int
    why: str


@dataclass(frozen=True)
class VerdictFile:
    """The lines of a file. `passed_over` is the number of lines without a verdict."""

    verdicts: list[Verdict] = field(default_factory=list)
    bad: list[BadLine] = field(default_factory=list)
    passed_over: int = 0


def read(path: Path) -> VerdictFile:
    """Read a file of verdicts. Raise ConfirmationError if it is not a CSV file with the required columns."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfirmationError(f"{path}: {error.strerror or error}") from error
    text = _text(path, content)
    separators = _SEPARATORS
    lines_before = 0
    if found := _SEPARATOR_LINE.match(text):
        text, separators, lines_before = text[found.end() :], found[1], 1
    header, separator = _header(path, text, separators)
    columns = (
        _required_column(path, header, TRANS_NUM),
        _required_column(path, header, VERDICT),
        *map(partial(_column, header), SOURCE_HEADERS),
    )
    verdicts: list[Verdict] = []
    bad: list[BadLine] = []
    passed_over = 0
    # The first row is the header.
    for line, row in islice(_rows(text, separator, lines_before), 1, None):
        result = _verdict(line, row, len(header), columns) if isinstance(row, list) else BadLine(line, row)
        if result is None:
            passed_over += 1
        elif isinstance(result, Verdict):
            verdicts.append(result)
        else:
            bad.append(result)
    return VerdictFile(verdicts, bad, passed_over)


def is_fraud(text: str) -> bool | None:
    """Return whether a cell's verdict is fraud, None if it holds no verdict."""
    return _WORDS.get(" ".join(text.strip(" \t'\"\xa0").casefold().split()))


def possible_trans_nums(text: str) -> tuple[str, ...]:
    """Return the trans_nums that a cell may stand for.

    These are its text, and each text that csv_attachment.cell() would write like that.
    """
    unquoted = [name for name in (text.removeprefix("'"), _APOSTROPHE.sub("", text)) if cell(name) == text]
    return tuple(dict.fromkeys(name for name in (text, *unquoted, text.strip()) if name))


def _text(path: Path, content: bytes) -> str:
    if content[:4] == b"PK\3\4":
        raise ConfirmationError(f"{path} is a spreadsheet or an archive: save it as CSV")
    encoding = next((encoding for bom, encoding in _BOMS if content.startswith(bom)), "")
    if not encoding and b"\0" in content[:2]:
        # UTF-16 without a byte order mark: the header's first character is in ASCII.
        encoding = "utf-16-be" if content[0] == 0 else "utf-16-le"
    try:
        text = content.decode(encoding or "utf-8")
    except UnicodeDecodeError:
        # If the file has another code page, names are garbled, but trans_num and verdict are not.
        text = "\0" if encoding else content.decode("cp1252", "replace")
    if "\0" in text:
        raise ConfirmationError(f"{path} is not a CSV file: it holds bytes that are not text")
    if not text.strip():
        raise ConfirmationError(f"{path} is empty: give a CSV with the columns {TRANS_NUM} and {VERDICT}")
    return text


def _header(path: Path, text: str, separators: str) -> tuple[list[str], str]:
    """Return the columns' names, and the separator that yields most of the needed columns."""
    best: tuple[tuple[int, int], list[str], str] | None = None
    for separator in separators:
        _, row = next(_rows(text, separator), (0, ""))
        if isinstance(row, list):
            names = [name.strip(" \t'\"\xa0") for name in row]
            rank = len({TRANS_NUM, VERDICT} & {name.casefold() for name in names}), len(names)
            best = max(best or (rank, names, separator), (rank, names, separator), key=lambda found: found[0])
    if best is None:
        raise ConfirmationError(f"{path} is not a CSV file: its first line cannot be read")
    return best[1], best[2]


def _required_column(path: Path, header: list[str], name: str) -> int:
    """Return the index of the only column of that name, in any case if none is written exactly so."""
    found = [index for index, title in enumerate(header) if title == name]
    found = found or [index for index, title in enumerate(header) if title.casefold() == name]
    if len(found) != 1:
        what = f"has {len(found)} columns {name}" if found else f"has no column {name}"
        raise ConfirmationError(f"{path} {what}: its first line must name {TRANS_NUM} and {VERDICT} once")
    return found[0]


def _column(header: list[str], name: str) -> int | None:
    """Return the index of the first column of that name, or None: a report's own columns precede the payment's."""
    return next((index for index, title in enumerate(header) if title.casefold() == name), None)


def _rows(text: str, separator: str, lines_before: int = 0) -> Iterator[tuple[int, list[str] | str]]:
    """Yield the first line's number of each row that is not blank, and the row, or the reason why it is invalid."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    while True:
        line = lines_before + reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # An unclosed quotation mark also consumes the lines after it.
            last = lines_before + reader.line_num
            unread = f": a quotation mark is not closed, and lines {line} to {last} are not read" if last > line else ""
            yield line, f"is not valid CSV: {error}{unread}"
            continue
        if any(entry.strip() for entry in row):
            yield line, row


def _verdict(line: int, row: list[str], width: int, columns: tuple[int | None, ...]) -> Verdict | BadLine | None:
    """Return the row's verdict, None if it has none, or a BadLine."""
    if any(entry.strip() for entry in row[width:]):
        return BadLine(line, f"has {len(row)} cells, but the header has {width}")
    # Spreadsheets leave out empty cells at the end.
    trans_num, verdict, source, row_in_message = (
        row[index] if index is not None and index < len(row) else "" for index in columns
    )
    if not verdict.strip():
        return None
    if not trans_num.strip():
        return BadLine(line, f"has no {TRANS_NUM}")
    if len(trans_num) > _MAX_TRANS_NUM_LENGTH:
        return BadLine(line, f"has a {TRANS_NUM} of more than {_MAX_TRANS_NUM_LENGTH:,} characters")
    fraud = is_fraud(verdict)
    if fraud is None:
        return BadLine(line, f"has an unknown {VERDICT}: give fraud, genuine, or nothing")
    return Verdict(line, possible_trans_nums(trans_num), fraud, PaymentSource.parse(source, row_in_message))
