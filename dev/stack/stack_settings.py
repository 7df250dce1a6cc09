"""Compose the product's settings for the local stack: the caller's environment, then `.env`, then defaults.

FRAUD_STAGING_URL is left out: with the staging area of a real installation, the stack would mail that installation's
reports to its own mailbox and mark them as sent. Only a file named by FRAUD_STACK_ENV_FILE can set it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from dev.stack.part import ROOT
from dev.stack.stack_errors import StackError
from include.deployment.env_file import parse
from include.deployment.text_file import read_text
from include.errors import SettingError

_STAGING = "FRAUD_STAGING_URL"
DEFAULTS = {"EMAIL_RECIPIENT": "analysts@example.com", "FRAUD_OPERATORS_EMAIL": "operators@example.com"}


def product_settings(assumed: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the settings by variable. `assumed` are further defaults for this kind of stack."""
    named = os.environ.get("FRAUD_STACK_ENV_FILE")
    written = _written(Path(named or ROOT / ".env"))
    given = {**written, **os.environ, _STAGING: written.get(_STAGING) if named else None}
    ours = {
        name: value
        for name, value in given.items()
        if value
        and (name == "EMAIL_RECIPIENT" or name.startswith("FRAUD_"))
        and not name.startswith(("FRAUD_STACK_", "FRAUD_TEST_"))
    }
    return DEFAULTS | dict(assumed or {}) | ours


def _written(path: Path) -> dict[str, str]:
    """Return what the file holds, read as docker compose reads it."""
    try:
        return parse(read_text(path), str(path)) if path.exists() else {}
    except SettingError as error:
        raise StackError("settings", str(error)) from None
