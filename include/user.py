"""Who works with a command, by name."""

from __future__ import annotations

import getpass
import os


def user_name() -> str:
    """A container may run as a user that nobody has named."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
