"""Detect passwords in lines without quotes, as in an .env file. detect-secrets loads this plugin by its file's name."""

from __future__ import annotations

import re

from detect_secrets.plugins.base import RegexBasedDetector


class SecretVariable(RegexBasedDetector):
    """Find the value of a variable for a password, a token or a key: its own detectors expect quotes."""

    secret_type = "Variable"  # noqa: S105
    denylist = (
        re.compile(
            r"^[\s#-]*(?:export\s+)?\w*(?:PASSWORD|PASSWD|SECRET|TOKEN|_KEY)\w*\s*[=:]\s*"
            r"(?=\S*\d)(?=\S*[A-Za-z])([\w+/=.!@%^*-]{8,})\s*$"
        ),
    )
