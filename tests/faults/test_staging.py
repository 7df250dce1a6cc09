"""Staged files and the cached model are missing or damaged, and the staging disk is full."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.fault_scenario import FaultScenario
from tests.support.fault_stack import FaultStack
from tests.support.pipeline import alarms
from tests.support.waiting import wait_until


def _gone(path: Path) -> None:
    path.unlink()


def _damaged(path: Path) -> None:
    """Change one bit in the middle of the file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _staged(fault_stack: FaultStack, name: str) -> Path:
    (path,) = fault_stack.newest_batch().rglob(name)
    return path


@pytest.mark.parametrize(
    ("point", "task", "name", "harm"),
    [
        ("resolve", "predict", "manifest.json", _gone),
        ("resolve", "predict", "manifest.json", _cut),
        ("resolve", "predict", "drained-0.json", _gone),
        ("predict", "predict", "payments-0-0.parquet", _gone),
        ("predict", "predict", "payments-0-0.parquet", _damaged),
        ("publish", "publish", "payments-0-0.parquet", _damaged),
        ("publish", "publish", "predictions-1-0.parquet", _gone),
        ("publish", "publish", "predictions-1-0.parquet", _damaged),
        ("publish", "publish", "scored-0.json", _gone),
        ("publish", "publish", "scored-0.json", _cut),
    ],
)
def test_missing_or_damaged_staged_file_fails_the_run_and_next_run_drains_again(
    scenario: FaultScenario, fault_stack: FaultStack, point: str, task: str, name: str, harm: Callable[[Path], None]
) -> None:
    """Nothing wrong is published: the run fails and names the file, and the next run drains again."""
    scenario.send()
    run_id, _ = scenario.stop_at(point)
    if point == "resolve":
        # resolve_model runs beside drain, which reads and writes the same files.
        scenario.await_task(run_id, "drain", ["success"])
    harm(_staged(fault_stack, name))
    scenario.breakpoint.go_on()
    scenario.give_up(run_id, task)
    scenario.await_words(run_id, task, f"/{name}", 1)
    scenario.finish(run_id, "failed")
    scenario.check()


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("manifest.json", _gone),
        ("manifest.json", _damaged),
        ("published-0.json", _damaged),
        ("predictions-0-0.parquet", _gone),
        ("predictions-0-0.parquet", _damaged),
    ],
)
def test_missing_or_damaged_report_file_fails_only_the_report(
    scenario: FaultScenario, fault_stack: FaultStack, name: str, harm: Callable[[Path], None]
) -> None:
    """The payments are published; the run fails because the report is not sent, and operators are mailed."""
    scenario.send()
    run_id, _ = scenario.stop_at("committed", 3)
    batch = fault_stack.newest_batch()
    harm(_staged(fault_stack, name))
    scenario.breakpoint.go_on()
    scenario.finish(run_id, "failed")
    scenario.await_words(run_id, "email", f"{batch.name}/")
    scenario.await_words(run_id, "email", name)
    wait_until(
        lambda: any("email failed: ReportError" in subject for subject in alarms(scenario.inbox)),
        "operators were not told",
    )
    assert not scenario.mailed()
    scenario.check_topics(scenario.window)
    fault_stack.give_up_reports()
    # A report that is sent ends the incident, so that the next case starts a new one.
    scenario.send()
    scenario.process_backlog()


@pytest.mark.parametrize("harm", [_gone, _damaged, _cut])
def test_missing_or_damaged_model_in_the_cache_is_downloaded_again(
    scenario: FaultScenario, fault_stack: FaultStack, harm: Callable[[Path], None]
) -> None:
    shutil.rmtree(fault_stack.model_cache, ignore_errors=True)
    scenario.send(rough=False)
    scenario.run()
    (artifact,) = fault_stack.model_cache.glob("*/model.pkl")
    whole = artifact.read_bytes()
    harm(artifact)
    scenario.send()
    scenario.check()
    assert artifact.read_bytes() == whole


@pytest.mark.parametrize(
    ("point", "task"),
    [
        pytest.param("drain", "drain", id="drain"),
        pytest.param("predict", "predict", id="predict"),
        pytest.param("publish", "publish", id="publish, before its first commit"),
        pytest.param("committed", "publish", id="publish, after its first commit"),
    ],
)
def test_run_succeeds_once_a_full_staging_disk_has_room(
    scenario: FaultScenario, fault_stack: FaultStack, point: str, task: str
) -> None:
    if not fault_stack.staging_is_small:
        pytest.skip("no small disk can be mounted here: that takes root")
    scenario.send()
    run_id, _ = scenario.stop_at(point)
    with fault_stack.full_staging_disk():
        scenario.breakpoint.go_on()
        scenario.await_task(run_id, task, ("up_for_retry", "failed"))
        scenario.await_words(run_id, task, "(the disk is full)", 1)
    scenario.finish(run_id)
    scenario.check()


def test_run_makes_room_on_a_disk_full_of_old_batches(scenario: FaultScenario, fault_stack: FaultStack) -> None:
    if not fault_stack.staging_is_small:
        pytest.skip("no small disk can be mounted here: that takes root")
    scenario.send()
    with fault_stack.full_staging_disk("batches/20200101T00/20200101T000000Z-abcdef/payments"):
        scenario.run()
    scenario.check()


def test_mail_is_sent_again_if_its_acceptance_could_not_be_stored(
    scenario: FaultScenario, fault_stack: FaultStack
) -> None:
    """It has the same Message-ID as before."""
    if not fault_stack.staging_is_small:
        pytest.skip("no small disk can be mounted here: that takes root")
    scenario.send()
    run_id, _ = scenario.stop_at("mail accepted")
    with fault_stack.full_staging_disk():
        scenario.breakpoint.go_on()
        scenario.finish(run_id, "failed")
        assert "(the disk is full)" in scenario.error(run_id, "email")
    scenario.check(resent=True)


def test_deleted_model_cache_is_filled_again(scenario: FaultScenario, fault_stack: FaultStack) -> None:
    scenario.send()
    run_id, _ = scenario.stop_at("predict")
    shutil.rmtree(fault_stack.model_cache)
    scenario.breakpoint.go_on()
    scenario.finish(run_id)
    scenario.check()
