"""Run `fraud env` where nothing is installed yet: `python3 -m include.deployment`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from include.deployment.env_writer import write_env
from include.errors import FraudError


def main() -> int:
    """Write the .env and return the exit code: 0 if it is complete, else 1."""
    parser = argparse.ArgumentParser(
        prog="python3 -m include.deployment",
        description="Write the .env of docker compose with generated secrets, readable only by you. "
        "Existing values stay as they are.",
    )
    parser.add_argument("--file", type=Path, default=Path(".env"), help="default: .env")
    parser.add_argument(
        "--accounts",
        action="store_true",
        help="write it for Kafka, S3 and mail accounts instead of the local services, and remove the values of the "
        "local ones",
    )
    parser.add_argument(
        "--from", dest="earlier", type=Path, help="copy settings from a secrets.ps1, a client.properties or an .env"
    )
    parser.add_argument(
        "--replace", action="store_true", help="with --from: also replace values that the file already has"
    )
    arguments = parser.parse_args()
    try:
        written = write_env(
            arguments.file, earlier=arguments.earlier, accounts=arguments.accounts, replace=arguments.replace
        )
    except FraudError as error:
        print(f"fraud env: {error}", file=sys.stderr)  # noqa: T201
        return 1
    print("\n".join(written.lines()))  # noqa: T201
    return 1 if written.missing else 0


if __name__ == "__main__":
    sys.exit(main())
