"""pip-licenses with the lists of pyproject.toml, on packages that are made up and on those that are installed."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

import piplicenses
import pytest
from trove_classifiers import classifiers

ROOT = Path(__file__).parents[2]
CLASSIFIER = "Classifier: License :: OSI Approved ::"


def is_allowed(*words: str) -> bool:
    arguments = piplicenses.create_parser(str(ROOT / "pyproject.toml")).parse_args(words)
    try:
        return bool(list(piplicenses.get_packages(arguments)))
    except SystemExit:
        return False


@pytest.mark.parametrize(
    ("licence", "allowed"),
    [
        (["License-Expression: MIT"], True),
        (["License-Expression: Apache-2.0 AND MIT"], True),
        ([f"{CLASSIFIER} BSD License", f"{CLASSIFIER} MIT License"], True),
        (["License: MIT"], True),
        (["License-Expression: MIT AND GPL-3.0-only"], False),
        ([f"{CLASSIFIER} MIT License", f"{CLASSIFIER} GNU General Public License (GPL)"], False),
        (["License: AGPL-3.0-only"], False),
        ([], False),
    ],
)
def test_a_package_may_have_only_licences_of_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, licence: list[str], allowed: bool
) -> None:
    (tmp_path / "made_up-1.dist-info").mkdir()
    lines = ["Metadata-Version: 2.4", "Name: made-up", "Version: 1", *licence]
    (tmp_path / "made_up-1.dist-info" / "METADATA").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert is_allowed("--packages", "made-up") == allowed


def test_a_licence_that_is_not_in_the_list_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert not is_allowed("--packages", "pandas", "--allow-only", "MIT License")
    assert "license BSD" in capsys.readouterr().err


def test_an_exception_is_for_one_version() -> None:
    exceptions = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pip-licenses"]["ignore-packages"]
    assert exceptions
    assert [text for text in exceptions if ":" not in text] == []


def test_each_classifier_is_allowed_or_refused() -> None:
    """pip-licenses accepts a package with one allowed licence of several, so all others must be refused by name."""
    lists = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pip-licenses"]
    allowed, refused = ({name.strip() for name in lists[key].split(";")} for key in ("allow-only", "fail-on"))
    known = {name.rpartition(" :: ")[2] for name in classifiers if name.startswith("License ::")}
    assert known - allowed - refused == set()
    assert (allowed & refused) == {""}


def test_make_looks_at_the_packages_that_the_product_runs_on() -> None:
    command = ["make", "--old-file=install", "licences", "SHOW=1"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = {line.split()[0] for line in shown.splitlines() if line.strip()}
    assert {"apache-airflow", "celery", "pandas"} <= names
    assert "mypy" not in names
