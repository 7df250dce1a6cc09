"""The name of the operating system user who runs a command."""

from __future__ import annotations

import getpass
import os


def user_name() -> str:
    """Return the user's name; `uid <number>` if the system has no name for it, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
