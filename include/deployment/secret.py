"""Generate secrets that no shell, URL, `.env`, INI, YAML or option parser can misread.

Standard library only, from Python 3.9 on, like env_file.py.
"""

from __future__ import annotations

import base64
import secrets
import string

_LETTERS = string.ascii_letters
_CHARACTERS = _LETTERS + string.digits


def secret(length: int = 32) -> str:
    """Return `length` random letters and digits, 5.95 bits each, that begin with a letter.

    A command would take a minus at the start for an option (`--password -7t…`), and YAML digits alone for a number.
    """
    return secrets.choice(_LETTERS) + "".join(secrets.choice(_CHARACTERS) for _ in range(length - 1))


def fernet_key() -> str:
    """Return a Fernet key (32 bytes in URL-safe base64) that contains neither - nor _ and starts with a letter.

    It ends with =, like every Fernet key. About a quarter of all keys qualify, which costs two of 256 bits.
    """
    while True:
        key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        if key[0] in _LETTERS and key[:-1].isalnum():
            return key
