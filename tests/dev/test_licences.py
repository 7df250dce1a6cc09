from __future__ import annotations

import pytest

from dev.checks import licences


@pytest.mark.parametrize(
    ("name", "licence", "allowed"),
    [
        ("a", "MIT", True),
        ("a", "Apache-2.0 AND MIT", True),
        ("a", "Apache Software License; BSD License", True),
        ("a", "GPL-3.0-only OR MIT", True),
        ("a", "MIT AND GPL-3.0-only", False),
        ("a", "MIT License; GNU General Public License (GPL)", False),
        ("a", "UNKNOWN", False),
        ("skops", "UNKNOWN", True),
        # What was read is not what it says now.
        ("skops", "AGPL-3.0-only", False),
    ],
)
def test_which_are_allowed(name: str, licence: str, allowed: bool) -> None:
    assert licences.is_allowed(name, licence) == allowed


def test_a_package_of_the_product_with_a_new_licence_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is installed is looked at: with the BSD taken off the list, pandas is one of those that are named."""
    monkeypatch.setattr(licences, "ALLOWED", licences.ALLOWED - {"BSD License", "BSD-3-Clause"})
    assert licences.main(show=False) == 1
    told = capsys.readouterr().err
    assert "licences: pandas: BSD" in told
    assert "mypy" not in told


def test_packages_are_read_from_the_lock() -> None:
    lock = "apache-airflow==3.3.2 \\\n    --hash=sha256:00\n    # via x\ncelery[redis]==5.6.3 ; python_version > '3'\n"
    assert licences.runtime_packages(lock) == {"apache-airflow", "celery"}
