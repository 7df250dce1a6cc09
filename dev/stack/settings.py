"""The product's own settings on this machine: the caller's environment, then `.env`, then what the stack assumes."""

from __future__ import annotations

import os

from dotenv import dotenv_values

from dev.stack.part import ROOT

DEFAULTS = {"EMAIL_RECIPIENT": "analysts@example.com", "FRAUD_OPERATORS_EMAIL": "operators@example.com"}


def product_settings() -> dict[str, str]:
    given = {**dotenv_values(os.environ.get("FRAUD_STACK_ENV_FILE", ROOT / ".env")), **os.environ}
    ours = {
        name: value
        for name, value in given.items()
        if value
        and (name == "EMAIL_RECIPIENT" or name.startswith("FRAUD_"))
        and not name.startswith(("FRAUD_STACK_", "FRAUD_TEST_"))
    }
    return DEFAULTS | ours
