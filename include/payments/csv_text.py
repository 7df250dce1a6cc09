"""The text of a CSV file of payments, packed or not: `fraud train --csv` and `fraud produce csv` read the same."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from include.errors import FraudError

# By their first bytes: a name says little of what was downloaded.
_ZIP = (b"PK\3\4", b"PK\5\6")
_PACKED: tuple[tuple[bytes, Any], ...] = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open))
_FOREIGN = ((b"\x28\xb5\x2f\xfd", "Zstandard"), (b"7z\xbc\xaf", "7z"), (b"Rar!", "RAR"))
_BUFFER_BYTES = 1024**2
_DAMAGED = (EOFError, gzip.BadGzipFile, lzma.LZMAError, zipfile.BadZipFile, zlib.error)


@contextmanager
def csv_text(path: Path, raised: type[FraudError]) -> Iterator[TextIO]:
    """Open the file as text, out of gzip, bzip2, xz or a zip of one file, in UTF-8 or, where it says so, in UTF-16.

    Raises `raised` where it cannot be read: not there, damaged, several files in a zip. A UnicodeDecodeError while it
    is read is left to the caller.
    """
    try:
        with ExitStack() as stack:
            file = stack.enter_context(path.open("rb"))
            content = io.BufferedReader(stack.enter_context(_unpacked(path, file, raised)), _BUFFER_BYTES)
            yield io.TextIOWrapper(content, encoding=_encoding(path, content.peek(4096), raised), newline="")
    except _DAMAGED as error:
        raise raised(f"{path} is damaged or truncated: {error}. Download or copy it again") from error
    except OSError as error:
        raise raised(f"{path} cannot be read: {error.strerror or error}") from error


def _unpacked(path: Path, file: BinaryIO, raised: type[FraudError]) -> Any:
    start = file.peek(8)[:8] if isinstance(file, io.BufferedReader) else b""
    for mark, name in _FOREIGN:
        if start.startswith(mark):
            raise raised(f"{path} is packed as {name}, which cannot be read here: unpack it")
    if start.startswith(_ZIP):
        return _of_zip(path, zipfile.ZipFile(file), raised)
    return next((unpack(file) for mark, unpack in _PACKED if start.startswith(mark)), file)


def _of_zip(path: Path, archive: zipfile.ZipFile, raised: type[FraudError]) -> Any:
    names = [one.filename for one in archive.infolist() if not one.is_dir()]
    if "[Content_Types].xml" in names:
        raise raised(f"{path} is a spreadsheet: save it as CSV")
    # What macOS adds for itself.
    names = [name for name in names if not name.startswith("__MACOSX/") and not name.endswith(".DS_Store")]
    if len(names) != 1:
        shown = f" ({', '.join(names[:5])}{', …' if names[5:] else ''})" if names else ""
        raise raised(f"{path} holds {len(names)} files{shown}, and must hold one: unpack it, and name the file")
    try:
        return archive.open(names[0])
    except (RuntimeError, NotImplementedError) as error:
        # With a password, or by a method that Python does not know.
        raise raised(f"{path} cannot be unpacked here ({error}): unpack it") from error


def _encoding(path: Path, start: bytes, raised: type[FraudError]) -> str:
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if b"\0" in start[:2]:
        # Its mark is missing; a header begins in ASCII.
        return "utf-16-be" if start[:1] == b"\0" else "utf-16-le"
    if b"\0" in start:
        raise raised(f"{path} is not a CSV file in UTF-8: it contains NUL bytes. Save it as CSV in UTF-8")
    # A file that went through a spreadsheet begins with a byte order mark.
    return "utf-8-sig"
