"""Known vulnerabilities of the packages that are pinned: `make audit`. Asks a public database, at most once a day.

    python -m dev.checks.audit [--again]

Where the database cannot be reached it says so and fails nothing. AUDIT_OSV_URL names another server of the same kind.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from dev.stack.part import ROOT

# Whoever does not know what is wrong with this one knows nothing: a mirror that answers to everything, say.
CANARY = "jinja2==2.4.1"
LOCKS = (ROOT / "requirements.txt", ROOT / "requirements-dev.txt")
CLEAN = ROOT / ".local" / "audit-clean"
# By the name of a vulnerability: why it does not concern us, until when.
ACCEPTED: dict[str, str] = {}
_DAY = 24 * 3600.0


def main(locks: tuple[Path, ...] = LOCKS, clean: Path = CLEAN, *, again: bool = False) -> int:
    digest = hashlib.sha256(b"".join(lock.read_bytes() for lock in locks)).hexdigest()
    if not again and clean.exists() and clean.read_text() == digest and time.time() - clean.stat().st_mtime < _DAY:
        print("audit: nothing known, less than a day ago")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        canary = Path(folder) / "canary.txt"
        canary.write_text(CANARY)
        if not _vulnerable(_ask(canary)):
            print("audit: the database of vulnerabilities is not reachable: skipped")
            return 0
    packages = _ask(*locks)
    if packages is None:
        print("audit: the database of vulnerabilities did not answer to all: run it again", file=sys.stderr)
        return 1
    found = [line for line in _vulnerable(packages) if line.split()[1] not in ACCEPTED]
    for line in found:
        print(f"audit: {line}", file=sys.stderr)
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    if skipped:
        print(f"audit: unknown there: {', '.join(skipped)}")
    if found:
        print("audit: raise it in requirements*.in and `make lock`, or say in ACCEPTED why not", file=sys.stderr)
        return 1
    clean.parent.mkdir(exist_ok=True)
    clean.write_text(digest)
    print(f"audit: nothing known of {len(packages) - len(skipped)} packages")
    return 0


def _ask(*locks: Path) -> list[dict[str, Any]] | None:
    """None where there was no whole answer."""
    command = [sys.executable, "-m", "pip_audit", "--vulnerability-service", "osv", "--format", "json", "--no-deps"]
    command += ["--disable-pip", "--progress-spinner", "off", "--timeout", "10"]
    if url := os.environ.get("AUDIT_OSV_URL"):
        command += ["--osv-url", url]
    command += [word for lock in locks for word in ("--requirement", str(lock))]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return None
    return packages


def _vulnerable(packages: list[dict[str, Any]] | None) -> list[str]:
    return [
        f"{package['name']}=={package['version']} {known['id']} mended in {' '.join(known['fix_versions']) or 'none'}"
        for package in packages or ()
        for known in package.get("vulns", ())
    ]


if __name__ == "__main__":
    sys.exit(main(again="--again" in sys.argv[1:]))
