from __future__ import annotations

import secrets
import subprocess
from pathlib import Path

import pytest

from dev.checks.secrets import main


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    return tmp_path


def keep(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)
    subprocess.run(["git", "add", "--all"], cwd=folder, check=True)


def random_text() -> str:
    """Of letters and digits both."""
    return f"a1{secrets.token_hex(12)}"


def test_what_is_planted_is_found_and_not_repeated(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planted = [random_text() for _ in range(5)]
    key = "-----BEGIN PRIVATE {}-----".format("KEY")
    keep(
        checkout,
        environment=f"SASL_PASSWORD={planted[0]}\n# old: AWS_SECRET_ACCESS_KEY={planted[1]}\n",
        connection=f'{{"sasl.username": "ann", "sasl.password": "{planted[2]}"}}\n',
        address=f"postgresql://fraud:{planted[3]}@db/airflow\n",
        module=f'password = "{planted[4]}"\n',
        pem=f"{key}\n",
        harmless='password = "secret"\nSMTP_PASSWORD=PASSWORD\nPOSTGRES_PASSWORD=${POSTGRES_PASSWORD}\n',
    )
    assert main(checkout) == 1
    told = capsys.readouterr().err
    places = {Path(line.split(": ")[1].rsplit(":", 1)[0]).name for line in told.splitlines()[:-1]}
    assert places == {"environment", "connection", "address", "module", "pem"}
    assert "environment:1: " in told
    assert not [text for text in planted if text in told]


def test_what_git_does_not_keep_is_not_looked_at(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(checkout, harmless="nothing\n")
    (checkout / ".env").write_text(f"SASL_PASSWORD={random_text()}\n")
    assert main(checkout) == 0
    assert capsys.readouterr().out == "secrets: none in 1 files\n"


def test_without_git_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(tmp_path) == 0
    assert "is no git checkout: skipped" in capsys.readouterr().out
