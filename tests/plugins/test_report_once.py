"""A report with the real outbox and a real mail server, while the staging area cannot be written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fraud_scoring.report_operator import FraudReportOperator
from include.batch.batch_record import BatchRecord
from include.batch.manifest import Manifest
from include.batch.outbox import Outbox
from include.errors import FraudError
from include.storage.staging import Storage
from tests.batch.conftest import staged
from tests.plugins.conftest import Inbox, StartServer
from tests.support.small_disk import SmallDisk, small_disk

assert staged  # a fixture
BATCH = "20260101T000000Z-aaaaaa"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "staging", 256) as disk:
        yield disk


@pytest.fixture
def folder(disk: SmallDisk) -> Storage:
    return Storage.open(str(disk.folder))


@pytest.fixture
def outbox(folder: Storage, staged: Callable[..., Manifest], monkeypatch: pytest.MonkeyPatch) -> Outbox:
    """An outbox with a pending report of two partitions."""
    monkeypatch.setenv("EMAIL_RECIPIENT", "analyst@bank.test")
    outbox = Outbox(folder, "a/group", "topic", "scored")
    manifest = staged(BATCH, {0: 1, 1: 1})
    outbox.open_entry(manifest)
    for partition in (0, 1):
        outbox.record_commit(manifest, partition)
    return outbox


def send(outbox: Outbox, runs: int = 1) -> list[str]:
    """Return the error of each run, empty if it succeeded."""
    errors = []
    for _ in range(runs):
        try:
            FraudReportOperator(task_id="email", outbox=lambda context: outbox).execute({})  # type: ignore[arg-type]
        except FraudError as error:
            errors.append(str(error))
        else:
            errors.append("")
    return errors


def ids(inbox: Inbox) -> list[str]:
    return [message["Message-ID"] for message in inbox.messages]


def test_no_report_is_sent_while_the_disk_is_full(mail_server: StartServer, disk: SmallDisk, outbox: Outbox) -> None:
    inbox = mail_server()
    with disk.full():
        errors = send(outbox, runs=10)
    assert all("(the disk is full)" in error for error in errors)
    assert inbox.messages == []
    assert send(outbox, runs=2) == ["", ""]
    assert len(inbox.messages) == 1


def test_no_report_is_sent_while_the_staging_area_is_read_only(
    mail_server: StartServer, disk: SmallDisk, outbox: Outbox
) -> None:
    inbox = mail_server()
    with disk.read_only():
        errors = send(outbox, runs=10)
    assert all("Read-only file system" in error for error in errors)
    assert inbox.messages == []
    assert send(outbox) == [""]
    assert len(inbox.messages) == 1


@pytest.mark.parametrize("free_pages", [1, 2, 3, 4])
def test_ten_runs_send_at_most_one_mail_on_a_nearly_full_disk(
    mail_server: StartServer, disk: SmallDisk, outbox: Outbox, free_pages: int
) -> None:
    inbox = mail_server()
    with disk.full(free_pages):
        send(outbox, runs=10)
    assert len(inbox.messages) <= 1
    send(outbox, runs=2)
    assert len(set(ids(inbox))) == 1
    assert outbox.entries() == []


def test_disk_that_fills_during_the_mail_causes_one_copy_with_the_same_message_id(
    mail_server: StartServer, disk: SmallDisk, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox, note = mail_server(), Outbox.record_delivery

    def full(*arguments: object) -> None:
        with disk.full():
            note(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as filling:
        filling.setattr(Outbox, "record_delivery", full)
        assert "(the disk is full)" in send(outbox)[0]
    with disk.full():
        send(outbox, runs=9)
    assert len(inbox.messages) == 1
    assert send(outbox, runs=3) == ["", "", ""]
    first, second = ids(inbox)
    assert first == second


def test_batch_record_names_accepted_recipients_only(
    mail_server: StartServer, folder: Storage, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = mail_server()
    monkeypatch.setenv("EMAIL_RECIPIENT", "analyst@bank.test, gone@bank.test")
    inbox.refused_recipients = {"gone@bank.test": "550 5.1.1 no such user"}
    assert "gone@bank.test (550 5.1.1 no such user)" in send(outbox)[0]
    (path,) = (f"records/{day}/{name}" for day in folder.list("records") for name in folder.list(f"records/{day}"))
    record = folder.need_json(path, BatchRecord)
    assert [part.delivery.recipients for part in record.partitions if part.delivery] == [("analyst@bank.test",)] * 2
    assert send(outbox) == [""]
    assert len(inbox.messages) == 1
