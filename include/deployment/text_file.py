"""Read text files as Windows, editors and PowerShell write them.

Standard library only, from Python 3.9 on, like env_file.py.
"""

from __future__ import annotations

import codecs
from pathlib import Path

from include.errors import SettingError


def read_text(path: Path) -> str:
    """Return the file's text with Unix line ends and without a byte order mark.

    PowerShell 5 writes UTF-16, also with `>`. Raise SettingError, which never quotes the text, for other encodings.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SettingError(f"{path}: cannot be read: {error.strerror}") from None
    encoding = "utf-8-sig"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif b"\0" in content[:2]:
        # UTF-16 without a byte order mark: these files begin with an ASCII character.
        encoding = "utf-16-be" if content[:1] == b"\0" else "utf-16-le"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        # In UTF-16 the line number would be a guess.
        line = f", line {content.count(10, 0, error.start) + 1}" if encoding == "utf-8-sig" else ""
        raise SettingError(f"{path}{line}: is neither UTF-8 nor UTF-16 text: save it as UTF-8") from None
    if "\0" in text:
        raise SettingError(f"{path}: is neither UTF-8 nor UTF-16 text: it contains NUL bytes. Save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")
