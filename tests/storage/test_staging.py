from __future__ import annotations

import resource
import subprocess
import sys
import threading
import traceback
from pathlib import Path

import pytest

from dev.stack.part import ROOT
from include.errors import SettingError, StagedFileDamagedError, StagingAccessError, StagingError
from include.storage.staging import Storage


def test_file_is_read_as_written_until_it_is_replaced(storage: Storage):
    storage.write("a/b/c.json", b"old")
    assert storage.read("a/b/c.json") == b"old"
    storage.write("a/b/c.json", memoryview(b"new"))
    assert storage.need("a/b/c.json") == b"new"
    storage.write("a/empty", b"")
    assert storage.read("a/empty") == b""


def test_error_names_missing_file(storage: Storage):
    assert storage.read("a/b") is None
    with pytest.raises(StagingError, match=r"a/b is missing from .*does not share the staging area"):
        storage.need("a/b")


_READERS_OF_NEW_KINDS = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import make_dataclass
import msgspec
from include.storage.staging import Storage

storage = Storage.open(sys.argv[1])
sys.setswitchinterval(1e-7)
barrier = threading.Barrier(8)

def read(kind):
    barrier.wait()
    return storage.need_json("a", kind).inner.number

with ThreadPoolExecutor(8) as threads:
    for _ in range(200):
        kind = msgspec.defstruct("Outer", [("inner", make_dataclass("Inner", [("number", "int")])), ("text", str)])
        assert list(threads.map(read, [kind] * 8)) == [1] * 8
"""


def test_threads_may_decode_a_new_type_at_the_same_time(folder: Storage):
    """In a process of its own, because it used to crash."""
    folder.write("a", b'{"inner": {"number": 1}, "text": "x"}')
    subprocess.run([sys.executable, "-c", _READERS_OF_NEW_KINDS, folder.url], cwd=ROOT, check=True, timeout=60)


def test_list_is_sorted(storage: Storage):
    assert storage.list("a") == []
    for path in ("a/2", "a/1", "a/deep/er/3", "b/4"):
        storage.write(path, b"x")
    assert storage.list("a") == ["1", "2", "deep"]
    assert storage.list("a/deep") == ["er"]


def test_list_of_a_folder_that_appears_meanwhile_is_empty(folder: Storage, tmp_path: Path):
    stop = threading.Event()

    def come_and_go() -> None:
        while not stop.is_set():
            (tmp_path / "staging/a").mkdir()
            (tmp_path / "staging/a").rmdir()

    other = threading.Thread(target=come_and_go)
    other.start()
    try:
        assert all(folder.list("a") == [] for _ in range(50_000))
    finally:
        stop.set()
        other.join()


def test_delete_removes_a_file_or_a_whole_folder(storage: Storage):
    for path in ("a/1", "a/2", "a/deep/3", "b/4"):
        storage.write(path, b"x")
    storage.delete("a/1")
    assert storage.list("a") == ["2", "deep"]
    storage.delete("a")
    assert storage.list("a") == []
    assert storage.read("a/deep/3") is None
    assert storage.read("b/4") == b"x"
    storage.delete("a")
    storage.delete("never/there")


def test_damaged_file_is_never_read(folder: Storage, tmp_path: Path):
    folder.write("a/file", b'{"end":12}')
    file = tmp_path / "staging/a/file"
    whole = file.read_bytes()
    turned = [
        whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :] for at in range(len(whole)) for bit in range(8)
    ]
    for content in (b"", whole[:10], whole[:-1], whole + b"\n", b"\0" * len(whole), *turned):
        file.write_bytes(content)
        with pytest.raises(StagedFileDamagedError, match=r"a/file in file:.* is damaged; .*clear the run's plan task"):
            folder.read("a/file")


def test_readers_never_see_a_partial_file(storage: Storage):
    # The largest size of a manifest.
    contents = {bytes([letter]) * 100_000 for letter in b"ab"}
    storage.write("file", min(contents))
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for content in contents:
                storage.write("file", content)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = {storage.read("file") for _ in range(50)}
    finally:
        stop.set()
        writer.join()
    assert seen <= contents


def test_local_folders_are_private(tmp_path: Path):
    place = tmp_path / "staging"
    place.mkdir(mode=0o755)
    Storage.open(str(place)).write("batches/1/file", b"x")
    assert place.stat().st_mode & 0o777 == 0o700
    assert Storage.open(place.as_uri()).read("batches/1/file") == b"x"


def test_full_disk_keeps_the_old_content_and_leaves_no_part(folder: Storage, tmp_path: Path):
    folder.write("a/file", b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(StagingError, match="cannot write a/file to file:"):
            folder.write("a/file", b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in (tmp_path / "staging/a").iterdir()] == ["file"]
    assert folder.read("a/file") == b"old"


def test_error_names_folder_that_cannot_be_created(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(StagingError, match=r"cannot create the staging folder .*/file/staging: Not a directory"):
        Storage.open(str(tmp_path / "file/staging"))


@pytest.mark.parametrize("url", ["ftp://host/folder", "s3://", "s3://a bucket", "nonsense://x"])
def test_invalid_url_is_a_setting_error(url: str):
    with pytest.raises(SettingError, match="FRAUD_STAGING_URL="):
        Storage.open(url)


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIA4711:s3cret@bucket/prefix",
        "s3://AKIA4711:s3c/ret@bucket/prefix",
        "s3://AKIA4711@bucket",
        "s3://AKIA4711:s3c+r/et",
        "ftp://AKIA4711:s3cret@host/folder",
        "S3://AKIA4711:s3cret@bucket/prefix",
        "nonsense://AKIA4711:s3cret@bucket/prefix",
        "s3://bucket/prefix?secret_key=s3cret&access_key=AKIA4711",
    ],
)
def test_url_with_keys_is_refused_and_not_quoted(url: str):
    with pytest.raises(SettingError, match="FRAUD_STAGING_URL") as refused:
        Storage.open(url)
    shown = "".join(traceback.format_exception(refused.value))
    assert "s3c" not in str(refused.value)
    assert "AKIA" not in str(refused.value)
    # A task's log shows what led to the error, too.
    assert "s3c" not in shown


@pytest.mark.parametrize(
    "url",
    [
        "s3:/AKIA4711:s3cret@b",
        "s3:AKIA4711:s3cret@b",
        "S3:/AKIA4711:s3c://ret@b",
        "s3//AKIA4711:s3cret@b",
        "file:/srv/s3c",
    ],
)
def test_url_without_two_slashes_is_refused(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        SettingError, match=r"FRAUD_STAGING_URL begins like a URL.*: give s3://bucket/prefix"
    ) as refused:
        Storage.open(url)
    assert "s3c" not in str(refused.value)
    assert "AKIA" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_folder_name_may_contain_an_at_sign(tmp_path: Path):
    Storage.open(str(tmp_path / "a@b")).write("file", b"x")
    assert Storage.open(f"{tmp_path.as_uri()}/a@b").read("file") == b"x"


def test_region_of_the_environment_is_used_without_a_request(monkeypatch: pytest.MonkeyPatch):
    url = "s3://no-such-bucket-4711-0815/staging"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "nobody")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    Storage.open(url)
    monkeypatch.delenv("AWS_REGION")
    # A missing network or bucket is not an invalid setting: a retry may succeed.
    with pytest.raises(StagingError, match=f"cannot open {url}: ") as raised:
        Storage.open(url)
    assert not raised.value.permanent


def test_error_names_file_and_url_if_s3_refuses(bucket: Storage, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    stranger = Storage.open(bucket.url)
    for act, error in (
        (lambda: stranger.write("a", b"x"), StagingAccessError),
        (lambda: stranger.list("a"), StagingAccessError),
        # S3 does not say why it refuses to tell whether a file exists.
        (lambda: stranger.read("a"), StagingError),
        (lambda: stranger.delete("a"), StagingError),
    ):
        with pytest.raises(error, match=f"cannot .* a (to|from|in) {bucket.url}"):
            act()
