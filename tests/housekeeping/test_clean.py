"""`fraud clean-history` and `fraud clean-disk` as a shell runs them, without a stack."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from dev.stack.part import BIN, ROOT
from tests.housekeeping.test_logs import log

PASSWORD = "open-sesame"
UNREACHABLE_DATABASE = f"postgresql+psycopg2://airflow:{PASSWORD}@127.0.0.1:1/airflow"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": f"{BIN}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "AIRFLOW_HOME": str(tmp_path / "home"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }


def fraud(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / "fraud"), *words],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_database_without_tables_is_an_error(environment: dict[str, str], tmp_path: Path) -> None:
    """Airflow's own command ignores missing tables, and succeeds."""
    done = fraud({**environment, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/a.db"}, "clean-history")
    assert done.returncode == 1
    reason = "`airflow db clean` did not check the table dag_run: run `airflow db migrate` first"
    assert done.stderr == f"fraud clean-history: {reason}\n"


def test_failure_is_one_line_and_is_retried_until_sigterm(environment: dict[str, str]) -> None:
    command = [str(BIN / "fraud"), "clean-history", "--every", "0.001"]
    environment["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = UNREACHABLE_DATABASE
    with subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True) as service:
        assert service.stderr
        lines = [service.stderr.readline() for _ in range(2)]
        service.send_signal(signal.SIGTERM)
        assert service.wait(20) == 128 + signal.SIGTERM
        lines.append(service.stderr.read())
    assert lines[0] == lines[1]
    assert lines[0].startswith("fraud clean-history: `airflow db clean` failed: OperationalError: ")
    assert "Connection refused" in lines[0]
    assert PASSWORD not in "".join(lines)


def test_invalid_setting_fails_at_once(environment: dict[str, str]) -> None:
    done = fraud({**environment, "FRAUD_HISTORY_DAYS": "0"}, "clean-history", "--every", "24")
    assert done.returncode == 1
    assert done.stderr == "fraud clean-history: FRAUD_HISTORY_DAYS='0': too small; give 1 to 36500 days\n"


def test_clean_disk_removes_old_logs_and_models(environment: dict[str, str], tmp_path: Path) -> None:
    """A worker's log folder may be set in airflow.cfg only."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "airflow.cfg").write_text(f"[logging]\nbase_log_folder = {tmp_path}/some logs\n")
    old = log(tmp_path / "some logs/dag_id=a/run_id=1/attempt=1.log", 20)
    young = log(tmp_path / "some logs/dag_id=a/run_id=2/attempt=1.log", 3)
    for name in ("older", "newer"):
        model = log(tmp_path / f"home/fraud/models/{name}/MLmodel", 0)
        os.truncate(model, 6 * 10**9)
    os.utime(tmp_path / "home/fraud/models/older", (1, 1))
    (tmp_path / "home/fraud/models/.locks").mkdir()

    done = fraud(environment, "clean-disk")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("disk: removed 1 logs (17 bytes) and 1 models, in ")
    assert (old.exists(), young.exists()) == (False, True)
    assert {path.name for path in (tmp_path / "home/fraud/models").iterdir()} == {".locks", "newer"}
