"""Old files in Airflow's log folder."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from include.errors import HousekeepingError
from include.housekeeping.logs import RemovedLogs, trim_logs

DAY = 86_400


def log(path: Path, days: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("what a task said\n")
    return aged(path, days)


def aged(path: Path, days: float) -> Path:
    then = time.time() - days * DAY
    os.utime(path, (then, then), follow_symlinks=False)
    return path


def age_folders(folder: Path, days: float) -> None:
    for path in folder.rglob("*"):
        if path.is_dir():
            aged(path, days)


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_old_files_are_removed_with_folders_that_become_empty(tmp_path: Path) -> None:
    log(tmp_path / "dag_id=a/run_id=old/task_id=x/attempt=1.log", 20)
    log(tmp_path / "dag_id=a/run_id=old/task_id=x/attempt=2.log", 14.1)
    log(tmp_path / "dag_id=b/run_id=old/attempt=1.log.trigger.3.log", 20)
    log(tmp_path / "dag_processor/2026-01-01/dags-folder/b.py.log", 20)
    log(tmp_path / "executor_callbacks/a/old/1", 20)
    log(tmp_path / "dag_id=a/run_id=cleared/task_id=x/attempt=1.log", 20)
    log(tmp_path / "dag_id=a/run_id=cleared/task_id=x/attempt=2.log", 13.9)
    age_folders(tmp_path, 20)
    # A task that is about to start has created its folder and no file.
    (tmp_path / "dag_id=a/run_id=new/task_id=x").mkdir(parents=True)

    assert trim_logs(tmp_path, 14) == RemovedLogs(files=6, bytes=6 * 17)
    assert tree(tmp_path) == {
        "dag_id=a",
        "dag_id=a/run_id=cleared",
        "dag_id=a/run_id=cleared/task_id=x",
        "dag_id=a/run_id=cleared/task_id=x/attempt=2.log",
        "dag_id=a/run_id=new",
        "dag_id=a/run_id=new/task_id=x",
    }
    assert trim_logs(tmp_path, 14) == RemovedLogs(0, 0)


def test_files_of_other_programs_stay(tmp_path: Path) -> None:
    """A base_log_folder may be /var/log."""
    log(tmp_path / "syslog", 99)
    log(tmp_path / "nginx/access.log", 99)
    log(tmp_path / "dag_id=a", 99)
    age_folders(tmp_path, 99)
    before = tree(tmp_path)
    assert trim_logs(tmp_path, 14) == RemovedLogs(0, 0)
    assert tree(tmp_path) == before


def test_links_are_neither_followed_nor_removed(tmp_path: Path) -> None:
    outside, logs = tmp_path / "outside", tmp_path / "logs"
    file = log(outside / "dag_id=z/precious", 99)
    log(logs / "dag_processor/2026-01-01/a.log", 99)
    log(logs / "dag_id=a/run_id=1/attempt=1.log", 99)
    links = {
        logs / "dag_id=z": outside / "dag_id=z",
        logs / "dag_processor/latest": logs / "dag_processor/2026-01-01",
        logs / "dag_id=a/run_id=2": outside,
        logs / "dag_id=a/run_id=1/attempt=2.log": file,
    }
    for link, target in links.items():
        link.symlink_to(target)
        aged(link, 99)
    age_folders(logs, 99)

    assert trim_logs(logs, 14).files == 2
    assert file.read_text()
    assert all(link.is_symlink() for link in links)


def test_missing_folder_is_no_error(tmp_path: Path) -> None:
    assert trim_logs(tmp_path / "never made", 14) == RemovedLogs(0, 0)


def test_log_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(HousekeepingError, match=r"logs \(Not a directory\)"):
        trim_logs(log(tmp_path / "logs", 99), 14)


def test_file_that_cannot_be_removed_is_named_and_others_are_removed() -> None:
    with TemporaryDirectory() as name:
        logs = Path(name)
        # The test runs as the user nobody, who has no rights here, because root may remove everything.
        refused = log(logs / "dag_id=a/run_id=1/attempt=1.log", 99).parent
        log(logs / "dag_id=b/run_id=1/attempt=1.log", 99).parent.chmod(0o777)
        refused.chmod(0o555)
        logs.chmod(0o755)
        with _as_nobody(), pytest.raises(HousekeepingError, match=r"attempt=1.log \(Permission denied\)") as error:
            trim_logs(logs, 14)
        refused.chmod(0o755)
        assert "1 files and folders" in str(error.value)
        assert "1 were removed" in str(error.value)
        assert [path.parent.parent.name for path in logs.rglob("*.log")] == ["dag_id=a"]


@contextmanager
def _as_nobody() -> Iterator[None]:
    root = os.geteuid() == 0
    if root:
        os.seteuid(65_534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
