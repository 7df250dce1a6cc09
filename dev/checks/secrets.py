"""Passwords, keys and tokens in the files that git keeps: `make secrets`. Prints where they are, never what.

python -m dev.checks.secrets [folder]
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from detect_secrets.core.scan import scan_file
from detect_secrets.plugins.base import RegexBasedDetector
from detect_secrets.settings import transient_settings

from dev.stack.part import ROOT

# What stands for a secret in the documents, and what tests give to servers of their own.
EXAMPLES = frozenset(
    {
        "API_SECRET", "LEDGER_DB_PASSWORD", "PASSWORD", "SASL_PASSWORD", "SECRET", "SECRET_ACCESS_KEY", "Variable",
        "a+b/c=d", r"a+b/c\u003dd", "a\\", "admin", "b", "gehéim€", "it", "it\\", "not an assignment", "of ledger",
        "of ledger_worker", "old", "open-sesame", "p", "p%40ss", "p%2Fs%40%3F%23", "p@ss", "password", "s", "s3cret",
        "secret", "start$rest", "wr0ng", "wrong", "x", "x#$y`z", "…",
    }
)  # fmt: skip
# Pictures, and hashes of packages by the thousand.
_LEFT_OUT = re.compile(r"\.(png|svg)$|^requirements.*\.txt$")
# Those that can be told by their form. By their disorder alone they cannot: payments' numbers look like keys.
_DETECTORS = (
    "AWSKeyDetector", "AzureStorageKeyDetector", "BasicAuthDetector", "GitHubTokenDetector", "GitLabTokenDetector",
    "JwtTokenDetector", "KeywordDetector", "PrivateKeyDetector", "PypiTokenDetector", "SlackDetector",
)  # fmt: skip
_CONFIGURATION = {
    "plugins_used": [
        *({"name": name} for name in _DETECTORS),
        {"name": "VariableDetector", "path": Path(__file__).as_uri()},
    ],
    "filters_used": [{"path": "detect_secrets.filters.heuristic.is_templated_secret"}],
}


class VariableDetector(RegexBasedDetector):
    """A variable's value without quotes, as in an .env file: the other detectors want them."""

    secret_type = "Variable"  # noqa: S105
    denylist = (
        re.compile(
            r"^[\s#-]*(?:export\s+)?\w*(?:PASSWORD|PASSWD|SECRET|TOKEN|_KEY)\w*\s*[=:]\s*"
            r"(?=\S*\d)(?=\S*[A-Za-z])([\w+/=.!@%^*-]{8,})\s*$"
        ),
    )


def main(folder: Path = ROOT) -> int:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=folder, capture_output=True, text=True)
    if listed.returncode:
        print(f"secrets: {folder} is no git checkout: skipped")
        return 0
    # What was removed and not yet committed is still listed.
    files = [name for name in listed.stdout.split("\0") if name and not _LEFT_OUT.search(name)]
    paths = [folder / name for name in files if (folder / name).is_file()]
    shares = os.cpu_count() or 1
    with ProcessPoolExecutor(shares) as pool:
        found = sorted(line for lines in pool.map(_scan, [paths[n::shares] for n in range(shares)]) for line in lines)
    for line in found:
        print(f"secrets: {line}", file=sys.stderr)
    if found:
        print(
            "secrets: take it out, and change it wherever it counts, for git keeps it; add what is but an example to "
            "EXAMPLES in dev/checks/secrets.py",
            file=sys.stderr,
        )
        return 1
    print(f"secrets: none in {len(paths)} files")
    return 0


def _scan(paths: list[Path]) -> set[str]:
    with transient_settings(_CONFIGURATION):
        return {line for path in paths for line in _found(path)}


def _found(path: Path) -> Iterator[str]:
    for secret in scan_file(str(path)):
        if secret.secret_value not in EXAMPLES:
            yield f"{path}:{secret.line_number}: {secret.type}"


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
