"""`python3 -m include.deployment`, which is `fraud env` where nothing is installed yet."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from include.deployment.initial import write_env
from include.errors import FraudError


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python3 -m include.deployment",
        description="Write the .env of docker compose: generated secrets, readable by you alone. What is there stays.",
    )
    parser.add_argument("--file", type=Path, default=Path(".env"), help="default: .env")
    parser.add_argument(
        "--accounts",
        action="store_true",
        help="for Kafka, S3 and mail accounts instead of local services, whose own values then go",
    )
    parser.add_argument(
        "--from", dest="earlier", type=Path, help="take over a secrets.ps1, a client.properties or an .env"
    )
    parser.add_argument("--replace", action="store_true", help="with --from: also what .env has with another value")
    words = parser.parse_args()
    try:
        done = write_env(words.file, earlier=words.earlier, accounts=words.accounts, replace=words.replace)
    except FraudError as error:
        print(f"fraud env: {error}", file=sys.stderr)  # noqa: T201
        return 1
    print("\n".join(done.lines()))  # noqa: T201
    return 1 if done.missing else 0


if __name__ == "__main__":
    sys.exit(main())
