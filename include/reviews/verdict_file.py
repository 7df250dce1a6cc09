"""A file of verdicts: the CSV of a report, or any with its trans_num, and a column `verdict` that a person filled in.

Spreadsheets save it with semicolons or tabs, in their machine's encoding, and say true and false in their own language.
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
"""CSV columns that name one payment among several with the same trans_num. A cell that is not a source counts as
empty."""
_FRAUD = "fraud fraudulent true yes y 1 1.0 wahr ja vrai oui verdadero sí si vero verdadeiro sim waar prawda tak"
_GENUINE = "genuine legit legitimate false no n 0 0.0 falsch nein faux non falso não nao onwaar nee fałsz nie"
_WORDS = dict.fromkeys(_FRAUD.split(), True) | dict.fromkeys([*_GENUINE.split(), "not fraud", "no fraud"], False)
_SEPARATORS = ",;\t|"
_BOMS = (
    (b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"),
)  # fmt: skip
# Excel says so in a line before the header.
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?(?:\r\n|\r|\n)')
# What cell() put before a character that a spreadsheet would run.
_APOSTROPHE = re.compile(r"'(?=\W)")
_LONGEST = 1_000


@dataclass(frozen=True)
class Verdict:
    """`names`: what the payment's trans_num may be, the likeliest first. `source` is None where the line has none."""

    line: int
    names: tuple[str, ...]
    fraud: bool
    source: PaymentSource | None = None


@dataclass(frozen=True)
class BadLine:
    """`why` never quotes the line: who mistook a column may have a card number where the verdict should be."""

    line: int
    why: str


@dataclass(frozen=True)
class VerdictFile:
    verdicts: list[Verdict] = field(default_factory=list)
    bad: list[BadLine] = field(default_factory=list)
    passed_over: int = 0


def read(path: Path) -> VerdictFile:
    """Raises ConfirmationError where nothing of the file can be used."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfirmationError(f"{path}: {error.strerror or error}") from error
    text = _text(path, content)
    separators = _SEPARATORS
    lines_before = 0
    if told := _SEPARATOR_LINE.match(text):
        text, separators, lines_before = text[told.end() :], told[1], 1
    header, separator = _header(path, text, separators)
    places = (
        _place(path, header, TRANS_NUM),
        _place(path, header, VERDICT),
        *map(partial(_first, header), SOURCE_HEADERS),
    )
    verdicts: list[Verdict] = []
    bad: list[BadLine] = []
    passed_over = 0
    # The first is the header.
    for line, row in islice(_rows(text, separator, lines_before), 1, None):
        found = _verdict(line, row, len(header), places) if isinstance(row, list) else BadLine(line, row)
        if found is None:
            passed_over += 1
        elif isinstance(found, Verdict):
            verdicts.append(found)
        else:
            bad.append(found)
    return VerdictFile(verdicts, bad, passed_over)


def word(text: str) -> bool | None:
    """Whether this verdict means fraud; None where it is none."""
    return _WORDS.get(" ".join(text.strip(" \t'\"\xa0").casefold().split()))


def trans_nums(text: str) -> tuple[str, ...]:
    """What a trans_num may be that stands so in a cell: itself, or what cell() writes in that way."""
    unquoted = [name for name in (text.removeprefix("'"), _APOSTROPHE.sub("", text)) if cell(name) == text]
    return tuple(dict.fromkeys(name for name in (text, *unquoted, text.strip()) if name))


def _text(path: Path, content: bytes) -> str:
    if content[:4] == b"PK\3\4":
        raise ConfirmationError(f"{path} is a spreadsheet or an archive: save it as CSV")
    encoding = next((encoding for bom, encoding in _BOMS if content.startswith(bom)), "")
    if not encoding and b"\0" in content[:2]:
        # UTF-16 whose mark is missing: the header's first character is in ASCII.
        encoding = "utf-16-be" if content[0] == 0 else "utf-16-le"
    try:
        text = content.decode(encoding or "utf-8")
    except UnicodeDecodeError:
        # Of a machine whose code page is another one, names are garbled; trans_num and verdict are not.
        text = "\0" if encoding else content.decode("cp1252", "replace")
    if "\0" in text:
        raise ConfirmationError(f"{path} is no CSV file: it holds no text that can be read")
    if not text.strip():
        raise ConfirmationError(f"{path} is empty: a CSV with the columns {TRANS_NUM} and {VERDICT} is needed")
    return text


def _header(path: Path, text: str, separators: str) -> tuple[list[str], str]:
    """The names of the columns, and the separator that gives the most of what is needed."""
    best: tuple[tuple[int, int], list[str], str] | None = None
    for separator in separators:
        _, row = next(_rows(text, separator), (0, ""))
        if isinstance(row, list):
            names = [name.strip(" \t'\"\xa0") for name in row]
            rank = len({TRANS_NUM, VERDICT} & {name.casefold() for name in names}), len(names)
            best = max(best or (rank, names, separator), (rank, names, separator), key=lambda found: found[0])
    if best is None:
        raise ConfirmationError(f"{path} is no CSV file: its first line cannot be read")
    return best[1], best[2]


def _place(path: Path, header: list[str], name: str) -> int:
    found = [place for place, given in enumerate(header) if given == name]
    found = found or [place for place, given in enumerate(header) if given.casefold() == name]
    if len(found) != 1:
        what = f"has {len(found)} columns {name}, one is needed" if found else f"has no column {name}"
        raise ConfirmationError(f"{path} {what}; its first line must name {TRANS_NUM} and {VERDICT}")
    return found[0]


def _first(header: list[str], name: str) -> int | None:
    """Return the index of the first column of that name, or None: a report's own columns come before the payment's."""
    return next((place for place, given in enumerate(header) if given.casefold() == name), None)


def _rows(text: str, separator: str, lines_before: int = 0) -> Iterator[tuple[int, list[str] | str]]:
    """Each row that is not blank with the number of its first line, or why it is none."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    while True:
        line = lines_before + reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            # A quotation mark that is not closed takes the lines behind it along.
            last = lines_before + reader.line_num
            lost = f": a quotation mark is not closed, and lines {line} to {last} are not read" if last > line else ""
            yield line, f"is no line of a CSV file: {error}{lost}"
            continue
        if any(entry.strip() for entry in row):
            yield line, row


def _verdict(line: int, row: list[str], width: int, places: tuple[int | None, ...]) -> Verdict | BadLine | None:
    """None where the payment was not reviewed."""
    if any(entry.strip() for entry in row[width:]):
        return BadLine(line, f"has {len(row)} cells, its header {width}")
    # Spreadsheets leave out empty cells at the end.
    name, verdict, source, place_in_message = (
        row[place] if place is not None and place < len(row) else "" for place in places
    )
    if not verdict.strip():
        return None
    if not name.strip():
        return BadLine(line, f"has no {TRANS_NUM}")
    if len(name) > _LONGEST:
        return BadLine(line, f"has a {TRANS_NUM} of more than {_LONGEST:,} characters")
    fraud = word(verdict)
    if fraud is None:
        return BadLine(line, f"has a {VERDICT} that is none: give fraud, genuine, or nothing")
    return Verdict(line, trans_nums(name), fraud, PaymentSource.parse(source, place_in_message))
