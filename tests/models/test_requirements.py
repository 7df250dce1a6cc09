from __future__ import annotations

from importlib import invalidate_caches
from importlib.metadata import version
from pathlib import Path

import pytest

from include.errors import ModelRequirementsError
from include.models.requirements import check, pip_lines_of_conda

SKLEARN = version("scikit-learn")


@pytest.mark.parametrize(
    "lines",
    [
        [f"scikit-learn=={SKLEARN}", "Scikit_Learn>=1.0", ""],
        ["# absent-package==1", "-r absent.txt", "--extra-index-url https://example.invalid", "-c absent.txt"],
        ["absent-package==1 ; python_version < '3'", "pandas  # absent-package"],
        [f"scikit-learn=={SKLEARN} \\", "    --hash=sha256:00"],
        ["requests[security]", "mlflow @ git+https://example.invalid/mlflow@main"],
    ],
)
def test_installed_packages_meet_requirements(lines: list[str]) -> None:
    assert check(lines) == []


def test_other_version_becomes_a_note() -> None:
    assert check(["scikit-learn==0.0.1"]) == [f"scikit-learn (wanted ==0.0.1, found {SKLEARN})"]


def test_line_that_names_no_package_becomes_a_note() -> None:
    assert check(["./code/thing.tar.gz"]) == ["cannot be checked: ./code/thing.tar.gz"]


def test_error_lists_every_missing_package_and_other_versions() -> None:
    lines = ["some-absent-package==1.2", "scikit-learn==0.0.1", "git+https://example.invalid/x#egg=other_absent&a=b"]
    lines += ["/wheels/third_absent-1.0-py3-none-any.whl", "-e git+https://example.invalid/y#egg=fourth_absent"]
    with pytest.raises(ModelRequirementsError) as caught:
        check(lines)
    assert "some-absent-package (wanted ==1.2, found none)" in str(caught.value)
    assert f"in other versions: scikit-learn (wanted ==0.0.1, found {SKLEARN})" in str(caught.value)
    for name in ("other_absent", "third-absent", "fourth_absent"):
        assert name in str(caught.value)


def test_missing_package_of_an_extra_becomes_a_note() -> None:
    assert any(note.startswith("openpyxl (wanted ") for note in check(["pandas[excel]"]))
    assert all("by pandas[excel]" in note for note in check(["pandas[excel]"]))
    assert check(["mlflow[extras,sqlserver]"])


def test_package_of_an_extra_is_required_if_also_listed() -> None:
    with pytest.raises(ModelRequirementsError, match="openpyxl"):
        check(["pandas[excel]", "openpyxl"])


@pytest.mark.parametrize(
    "line",
    ["numpy-cpu", "psycopg2-binary>=2", "psycopg2", "sklearn", "scikit_learn_intel", "numpy-gpu==1"],
)
def test_module_of_another_distribution_meets_requirement(line: str) -> None:
    for note in check([line]):
        assert "of another package" in note


def test_folder_without_init_does_not_count_as_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some_absent_package").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModelRequirementsError, match="some-absent-package"):
        check(["some-absent-package"])
    (tmp_path / "some_absent_package" / "__init__.py").write_text("")
    invalidate_caches()
    assert check(["some-absent-package==2"]) == [
        "some-absent-package (wanted ==2, found the module some_absent_package of another package)"
    ]
    assert len(check(["some-absent-package-cpu", "some_absent_package_cu12"])) == 2


def test_notebook_packages_are_never_required() -> None:
    assert check(["ipykernel==6", "jupyter_client"]) == [
        "ipykernel (wanted ==6, found none)",
        "jupyter_client (wanted any version, found none)",
    ]


def test_missing_packages_are_logged_if_not_required(caplog: pytest.LogCaptureFixture) -> None:
    assert check(["some-absent-package==1.2"], run_id="r", required=False) == []
    assert "(FRAUD_UNCHECKED_REQUIREMENTS): some-absent-package (wanted ==1.2, found none)" in caplog.text


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            "dependencies:\n- python=3.9\n- pytorch=2\n- pip:\n  - mlflow\n  - cloudpickle==2.0\n",
            ["mlflow", "cloudpickle==2.0"],
        ),
        ("dependencies:\n- python=3.9\n", []),
        ("", []),
        ("- no\n- mapping\n", []),
        ("a: [", []),
    ],
)
def test_pip_requirements_are_read_from_conda_file(text: str, lines: list[str]) -> None:
    assert pip_lines_of_conda(text) == lines
