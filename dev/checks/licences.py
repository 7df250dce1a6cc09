"""On which terms the packages are used that the product runs on: `make licences`. A new kind of licence is an error.

python -m dev.checks.licences [--list]
"""

from __future__ import annotations

import json
import re
import subprocess
import sys

from packaging.utils import canonicalize_name

from dev.stack.part import ROOT

# As packages write them: by name, by SPDX identifier, or as a classifier. All let the product be used, changed and
# passed on under its own licence; the MPL asks for the source of changes to its own files, and none are made.
ALLOWED = frozenset(
    {
        "0BSD", "3-Clause BSD License", "Apache Software License", "Apache-2.0", "BSD License", "BSD-2-Clause",
        "BSD-3-Clause", "CC0-1.0", "ISC", "ISC License (ISCL)", "MIT", "MIT License", "MIT-0", "MIT-CMU", "MPL-2.0",
        "Mozilla Public License 2.0 (MPL 2.0)", "PSF-2.0", "Python Software Foundation License",
        "The Unlicense (Unlicense)", "Unlicense", "Zlib",
    }
)  # fmt: skip
# By package: what it says, and why it is used all the same.
_LGPL = "a library that is used unchanged, and can be replaced by whoever runs the product"
EXCEPTIONS = {
    "huey": ("UNKNOWN", "MIT, by the LICENSE file in it"),
    "psycopg": ("LGPL-3.0-only", _LGPL),
    "psycopg-binary": ("LGPL-3.0-only", _LGPL),
    "psycopg2-binary": ("GNU Library or Lesser General Public License (LGPL)", _LGPL),
    "skops": ("UNKNOWN", "MIT, by the LICENSE file in it"),
    "text-unidecode": (
        "Artistic License; GNU General Public License (GPL); GNU General Public License v2 or later (GPLv2+)",
        "one may choose: the Artistic License",
    ),
}


def main(*, show: bool) -> int:
    runtime = runtime_packages((ROOT / "requirements.txt").read_text())
    licences = {name: licence for name, licence in _installed().items() if name in runtime}
    if show:
        for name, licence in sorted(licences.items()):
            print(f"{name:<44} {licence}{reason(name, licence)}")
    unknown = [f"{name}: {licence}" for name, licence in sorted(licences.items()) if not is_allowed(name, licence)]
    for line in unknown:
        print(f"licences: {line}", file=sys.stderr)
    if unknown:
        print(
            "licences: read it; then add it to ALLOWED or EXCEPTIONS in dev/checks/licences.py, or do without it",
            file=sys.stderr,
        )
        return 1
    print(f"licences: those of {len(licences)} packages are allowed, {len(EXCEPTIONS)} of them by exception")
    return 0


def is_allowed(name: str, licence: str) -> bool:
    """Of "A OR B" one is enough; of "A AND B", or where several are listed, each counts."""
    if name in EXCEPTIONS:
        return EXCEPTIONS[name][0] == licence
    return any(
        all(part.strip(" ()") in ALLOWED or part.strip() in ALLOWED for part in re.split(r"; | AND ", choice))
        for choice in licence.split(" OR ")
    )


def reason(name: str, licence: str) -> str:
    return f" ({EXCEPTIONS[name][1]})" if name in EXCEPTIONS and EXCEPTIONS[name][0] == licence else ""


def runtime_packages(requirements: str) -> set[str]:
    return {
        canonicalize_name(name) for name in re.findall(r"^([A-Za-z0-9][\w.-]*)(?:\[[^]]*\])?==", requirements, re.M)
    }


def _installed() -> dict[str, str]:
    command = [sys.executable, "-m", "piplicenses", "--from=mixed", "--format=json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {canonicalize_name(package["Name"]): package["License"] for package in json.loads(done.stdout)}


if __name__ == "__main__":
    sys.exit(main(show="--list" in sys.argv[1:]))
