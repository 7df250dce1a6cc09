"""Open a CSV file of payments as text, compressed or not, for `fraud train --csv` and `fraud produce csv`."""

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
from typing import Any, TextIO

from include.errors import FraudError

# The first bytes of each format. File names are not reliable: a download often has the wrong suffix.
_ZIP_STARTS = (b"PK\3\4", b"PK\5\6")
_DECOMPRESSORS: tuple[tuple[bytes, Any], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\0", lzma.open),
)
_UNSUPPORTED = ((b"\x28\xb5\x2f\xfd", "Zstandard"), (b"7z\xbc\xaf", "7z"), (b"Rar!", "RAR"))
_BUFFER_BYTES = 1024**2
_DAMAGE_ERRORS = (EOFError, gzip.BadGzipFile, lzma.LZMAError, zipfile.BadZipFile, zlib.error)


@contextmanager
def csv_text(path: Path, error_type: type[FraudError]) -> Iterator[TextIO]:
    """Yield the file's text. It may be compressed as gzip, bzip2, xz or a zip of one file, and be UTF-8 or UTF-16.

    Raise `error_type` if the file is missing, damaged, of an unsupported format, or a zip of several files. A
    UnicodeDecodeError, which reading the text may raise, is left to the caller.
    """
    try:
        with ExitStack() as stack:
            file = stack.enter_context(path.open("rb"))
            content = io.BufferedReader(stack.enter_context(_decompress(path, file, error_type)), _BUFFER_BYTES)
            yield io.TextIOWrapper(content, encoding=_encoding(path, content.peek(4096), error_type), newline="")
    except _DAMAGE_ERRORS as error:
        raise error_type(f"{path} is damaged or truncated: {error}. Download or copy it again") from error
    except OSError as error:
        raise error_type(f"{path} cannot be read: {error.strerror or error}") from error


def _decompress(path: Path, file: io.BufferedReader, error_type: type[FraudError]) -> Any:
    start = file.peek(8)[:8]
    for magic, name in _UNSUPPORTED:
        if start.startswith(magic):
            raise error_type(f"{path} is compressed as {name}, which is not supported: decompress it")
    if start.startswith(_ZIP_STARTS):
        return _open_zip_member(path, zipfile.ZipFile(file), error_type)
    return next((decompress(file) for magic, decompress in _DECOMPRESSORS if start.startswith(magic)), file)


def _open_zip_member(path: Path, archive: zipfile.ZipFile, error_type: type[FraudError]) -> Any:
    names = [member.filename for member in archive.infolist() if not member.is_dir()]
    if "[Content_Types].xml" in names:
        raise error_type(f"{path} is a spreadsheet: save it as CSV")
    # macOS adds these.
    names = [name for name in names if not name.startswith("__MACOSX/") and not name.endswith(".DS_Store")]
    if len(names) != 1:
        shown = f" ({', '.join(names[:5])}{', …' if names[5:] else ''})" if names else ""
        raise error_type(f"{path} holds {len(names)} files{shown}, and must hold one: unpack it, and give one of them")
    try:
        return archive.open(names[0])
    except (RuntimeError, NotImplementedError) as error:
        # It has a password, or a compression that Python does not support.
        raise error_type(f"{path} cannot be decompressed ({error}): decompress it") from error


def _encoding(path: Path, start: bytes, error_type: type[FraudError]) -> str:
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    if b"\0" in start[:2]:
        # Without a byte order mark: the header begins with ASCII, of which UTF-16 has one byte in two.
        return "utf-16-be" if start[:1] == b"\0" else "utf-16-le"
    if b"\0" in start:
        raise error_type(f"{path} is not a CSV file in UTF-8: it contains NUL bytes. Save it as CSV in UTF-8")
    # Spreadsheets begin a file with a byte order mark, which this encoding skips.
    return "utf-8-sig"
