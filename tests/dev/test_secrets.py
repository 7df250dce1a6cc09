"""dev/secrets.sh with .secrets.baseline, on a checkout with planted secrets."""

from __future__ import annotations

import re
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    (tmp_path / "dev").mkdir()
    for name in (".secrets.baseline", "dev/secret_variable.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def track(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)
    subprocess.run(["git", "add", "--all"], cwd=folder, check=True)


def scan(folder: Path) -> subprocess.CompletedProcess[str]:
    hook = Path(sys.executable).with_name("detect-secrets-hook")
    return subprocess.run([ROOT / "dev" / "secrets.sh", hook], cwd=folder, capture_output=True, text=True)


def random_text() -> str:
    """Return letters and digits."""
    return f"a1{secrets.token_hex(12)}"


def test_planted_secrets_are_found_and_not_printed(checkout: Path) -> None:
    planted = [random_text() for _ in range(5)]
    key = "-----BEGIN PRIVATE {}-----".format("KEY")
    track(
        checkout,
        environment=f"SASL_PASSWORD={planted[0]}\n# old: AWS_SECRET_ACCESS_KEY={planted[1]}\n",
        connection=f'{{"sasl.username": "ann", "sasl.password": "{planted[2]}"}}\n',
        address=f"postgresql://fraud:{planted[3]}@db/airflow\n",
        module=f'password = "{planted[4]}"\n',
        pem=f"{key}\n",
        harmless='password = "secret"\nSMTP_PASSWORD=PASSWORD\nPOSTGRES_PASSWORD=${POSTGRES_PASSWORD}\n',
    )
    done = scan(checkout)
    assert done.returncode == 1
    output = done.stdout + done.stderr
    assert set(re.findall(r"Location: +(\w+):\d+", output)) == {"environment", "connection", "address", "module", "pem"}
    assert "environment:1\n" in output
    assert not [text for text in planted if text in output]


def test_a_file_that_git_does_not_track_is_not_scanned(checkout: Path) -> None:
    track(checkout, harmless="nothing\n")
    (checkout / ".env").write_text(f"SASL_PASSWORD={random_text()}\n")
    (checkout / "harmless").unlink()
    done = scan(checkout)
    assert (done.returncode, done.stdout) == (0, "secrets: none in 3 tracked files\n")


def test_without_git_the_scan_is_skipped(tmp_path: Path) -> None:
    done = scan(tmp_path)
    assert (done.returncode, done.stdout) == (0, f"secrets: {tmp_path} is not a git checkout: skipped\n")
