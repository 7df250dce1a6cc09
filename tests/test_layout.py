"""Rules of the tree that a reader relies on, and two traps of Airflow's."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    return names


# From the bottom up: what each package of include/ may import besides `errors`. Each may name only those above it.
LAYERS: dict[str, set[str]] = {
    "errors": set(),
    "user": set(),
    "mail_addresses": set(),
    "environment_settings": set(),
    "topic_settings": {"environment_settings"},
    "settings": {"environment_settings", "mail_addresses", "topic_settings"},
    "preload": {"settings"},
    "storage": set(),
    "payments": set(),
    "kafka": {"settings"},
    "deployment": {"kafka", "settings"},
    "producer": {"kafka", "payments"},
    "report": {"payments", "storage"},
    "housekeeping": {"storage"},
    "models": {"payments", "settings", "storage"},
    "training": {"models", "payments", "storage"},
    "batch": {"kafka", "models", "payments", "report", "settings", "storage", "user"},
    "ledger": {"batch", "kafka", "payments", "settings", "storage"},
    "reviews": {"ledger", "models", "payments", "report"},
    "verify": {"kafka", "ledger", "payments", "settings"},
    "check": {"kafka", "ledger", "models", "settings", "storage"},
    "cli": {
        "batch", "check", "deployment", "housekeeping", "kafka", "ledger", "models", "producer", "reviews", "settings",
        "training", "user", "verify",
    },
}  # fmt: skip


def package_of(path: Path) -> str:
    return path.relative_to(ROOT / "include").parts[0].removesuffix(".py")


def imported_packages(path: Path) -> set[str]:
    """Return the packages of include/ that a module imports anywhere, also for types only."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in modules if name.startswith("include.")} - {package_of(path)}


def test_packages_of_include_import_only_the_layers_below():
    files = [path for path in (ROOT / "include").rglob("*.py") if path != ROOT / "include" / "__init__.py"]
    assert {package_of(path) for path in files} == LAYERS.keys()
    found = {str(path): imported_packages(path) - {"errors"} - LAYERS[package_of(path)] for path in files}
    assert {path: packages for path, packages in found.items() if packages} == {}


def test_layers_form_no_circle():
    names = list(LAYERS)
    assert {name for place, name in enumerate(names) if not LAYERS[name] <= set(names[:place])} == set()


def test_include_is_plain_python_without_airflow():
    files = sorted((ROOT / "include").rglob("*.py"))
    assert files
    assert [str(path) for path in files if imports(path) & {"airflow", "fraud_scoring", "dev"}] == []


def test_what_workers_get_does_not_need_the_developers_tools():
    files = [path for folder in ("dags", "plugins") for path in (ROOT / folder).rglob("*.py")]
    assert files
    assert [str(path) for path in files if "dev" in imports(path)] == []


def test_no_two_modules_or_classes_have_one_name():
    modules, classes = Counter[str](), Counter[str]()
    for folder in ("include", "plugins", "dags", "dev", "benchmarks"):
        # remote_logs.py repeats a class of logs.py; a bucket's lifecycle rule replaces it.
        for path in set((ROOT / folder).rglob("*.py")) - {ROOT / "include" / "housekeeping" / "remote_logs.py"}:
            if path.name not in ("__init__.py", "__main__.py"):
                modules[path.stem] += 1
            tree = ast.parse(path.read_text())
            classes.update(node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    assert [name for name, count in modules.items() if count > 1] == []
    assert [name for name, count in classes.items() if count > 1] == []


def test_airflow_does_not_load_the_plugin_package_by_bare_names():
    """It imports every file of the plugins folder by its stem: an mlflow.py there would hide the real one."""
    ignored = (ROOT / "plugins" / ".airflowignore").read_text()
    assert "fraud_scoring" in ignored
    assert [path.name for path in (ROOT / "plugins").glob("*.py")] == ["fraud_plugin.py"]


@pytest.mark.parametrize(
    "module", ["include.settings", "include.models.selection", "include.errors", "include.cli.main"]
)
def test_light_modules_stay_light(module: str):
    heavy = ("pandas", "numpy", "mlflow", "sklearn", "boto3", "pyarrow")
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
