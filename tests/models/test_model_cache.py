from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from include.errors import ModelNotFoundError, ModelStoreError
from include.models import model_cache as cache_module
from include.models.load import load
from include.models.model_cache import ModelCache
from include.models.model_run import ModelRun
from include.models.resolve import DEFAULT, resolve
from include.models.scoring import score
from tests.models.conftest import Lab
from tests.models.test_scoring import to_json
from tests.models.zoo import payment, run_of

GIGABYTE = 10**9
# A task: it fetches a model, prints its folder, and uses the model until its standard input ends.
TASK = """
import json, logging, sys
from pathlib import Path
from include.models.model_cache import ModelCache
from include.models.model_run import ModelRun
logging.basicConfig(level="INFO", stream=sys.stdout)
run = ModelRun.from_dict(json.loads(sys.argv[2]))
print(ModelCache(Path(sys.argv[1]), int(sys.argv[3])).fetch(run), flush=True)
sys.stdin.read()
"""

# A task that holds the lock of a download until it is killed.
DOWNLOADING_TASK = """
import signal, sys
from pathlib import Path
from include.models.model_cache import ModelCache
cache = ModelCache(Path(sys.argv[1]), 10**9)
cache._make_folders()
with cache._lock(sys.argv[2], "download"):
    print("downloading", flush=True)
    signal.pause()
"""


@pytest.fixture
def lab(service_environment: dict[str, str], seed_folder: Path) -> Lab:
    """Return a lab whose models have all their files."""
    return Lab(seed_folder)


@pytest.fixture(autouse=True)
def _no_entry_in_use() -> Iterator[None]:
    yield
    release_entries()


def release_entries() -> None:
    """Release the locks of this process, as its end would."""
    while cache_module._IN_USE:
        os.close(cache_module._IN_USE.popitem()[1])


def resolve_run(requested: str) -> ModelRun:
    return resolve(requested, experiment=None, chosen_by=DEFAULT)


def start_task(folder: Path, run: ModelRun, max_bytes: int = GIGABYTE) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", TASK, str(folder), json.dumps(run.to_dict()), str(max_bytes)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def entries(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name != ".locks"}


@pytest.mark.parametrize("model", ["logged", "artifacts"])
def test_fetched_model_scores(lab: Lab, tmp_path: Path, model: str) -> None:
    run = resolve_run(lab.run(lab.experiment(), model=model))
    folder = ModelCache(tmp_path / "cache", GIGABYTE).fetch(run)
    assert score(load(run, folder), to_json([payment()])).prediction.tolist() == [0]
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


def test_registered_version_is_fetched(lab: Lab, tmp_path: Path) -> None:
    run_id = lab.run(lab.experiment(), model="artifacts")
    name = f"fraud {run_id}"
    lab.client.create_registered_model(name)
    lab.client.create_model_version(name, f"{lab.client.get_run(run_id).info.artifact_uri}/model", run_id)
    folder = ModelCache(tmp_path, GIGABYTE).fetch(resolve_run(f"models:/{name}/1"))
    lab.client.delete_registered_model(name)
    assert (folder / "model.pkl").stat().st_size > 0


def test_downloaded_model_is_fetched_without_mlflow(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = resolve_run(lab.run(lab.experiment()))
    first = ModelCache(tmp_path, GIGABYTE).fetch(run)
    release_entries()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert ModelCache(tmp_path, GIGABYTE).fetch(run) == first


def test_concurrent_tasks_share_one_download(lab: Lab, tmp_path: Path, service_environment: dict[str, str]) -> None:
    run = resolve_run(lab.run(lab.experiment()))
    tasks = [start_task(tmp_path, run) for _ in range(3)]
    outputs = [each.communicate(timeout=120)[0] for each in tasks]
    assert [each.returncode for each in tasks] == [0, 0, 0]
    assert {output.splitlines()[-1] for output in outputs} == {str(tmp_path / run.cache_key)}
    assert sum(output.count("downloaded") for output in outputs) == 1
    assert entries(tmp_path) == {run.cache_key}


@pytest.mark.parametrize(
    "damage",
    [
        lambda e: (e / "MLmodel").unlink(),
        lambda e: os.truncate(e / "model.pkl", 10),
        lambda e: flip_a_bit(e / "model.pkl"),
        shutil.rmtree,
    ],
)
def test_damaged_entry_is_downloaded_again(lab: Lab, tmp_path: Path, damage: object) -> None:
    run = resolve_run(lab.run(lab.experiment()))
    folder = ModelCache(tmp_path, GIGABYTE).fetch(run)
    content, names = (folder / "model.pkl").read_bytes(), sorted(path.name for path in folder.iterdir())
    damage(folder)  # type: ignore[operator]
    assert (ModelCache(tmp_path, GIGABYTE).fetch(run) / "model.pkl").read_bytes() == content
    assert entries(tmp_path) == {run.cache_key}
    assert sorted(path.name for path in folder.iterdir()) == names


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_least_recently_used_entry_is_evicted_unless_in_use(lab: Lab, tmp_path: Path) -> None:
    experiment = lab.experiment()
    runs = [resolve_run(lab.run(experiment)) for _ in range(4)]
    large_cache = ModelCache(tmp_path, GIGABYTE)
    for run in runs[:3]:
        large_cache.fetch(run)
    release_entries()
    size = sum(path.stat().st_size for path in (tmp_path / runs[0].cache_key).rglob("*"))
    for age, run in zip((10, 30, 20), runs, strict=False):
        os.utime(tmp_path / run.cache_key, (1_700_000_000 - age, 1_700_000_000 - age))
    other_task = start_task(tmp_path, runs[1])
    assert other_task.stdout is not None
    assert other_task.stdout.readline().strip() == str(tmp_path / runs[1].cache_key)
    os.utime(tmp_path / runs[1].cache_key, (1_600_000_000, 1_600_000_000))
    ModelCache(tmp_path, int(size * 3.5)).fetch(runs[3])
    assert entries(tmp_path) == {runs[0].cache_key, runs[1].cache_key, runs[3].cache_key}
    other_task.communicate(timeout=60)
    release_entries()
    assert ModelCache(tmp_path, 1).fetch(resolve_run(lab.run(experiment))).is_dir()
    assert len(entries(tmp_path)) == 1


def test_concurrent_evictions_do_not_fail(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path, 0)
    cache._make_folders()
    for number in range(300):
        (tmp_path / f"model-{number}").mkdir()
        (tmp_path / f"model-{number}/MLmodel").write_bytes(b"x")
    with ThreadPoolExecutor(8) as tasks:
        list(tasks.map(cache._evict, ["mine"] * 8))
    assert entries(tmp_path) == set()


def test_trim_keeps_entries_that_are_in_use_or_downloaded(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path / "cache", 20)
    assert cache.trim() == 0
    cache._make_folders()
    for number, name in enumerate(["old", "used", "fetched", "new"]):
        (cache.folder / name).mkdir()
        (cache.folder / name / "MLmodel").write_bytes(b"x" * 10)
        os.utime(cache.folder / name, (number, number))
    (cache.folder / "download-gone-abc").mkdir()
    (cache.folder / "download-fetched-abc").mkdir()
    with cache._lock("used", "use"), cache._lock("fetched", "download"):
        assert cache.trim() == 2
    assert entries(cache.folder) == {"used", "fetched", "download-fetched-abc"}


def test_fetch_removes_leftovers_of_killed_downloads(lab: Lab, tmp_path: Path) -> None:
    """The leftovers are of the same model and of another one; a download that still runs keeps its files."""
    experiment = lab.experiment()
    run, other = resolve_run(lab.run(experiment)), resolve_run(lab.run(experiment))
    in_download = run_of(run_id="1" * 32)
    for each in (run, other, in_download):
        (tmp_path / f"download-{each.cache_key}-abc").mkdir()
    cache = ModelCache(tmp_path, GIGABYTE)
    cache._make_folders()
    with cache._lock(in_download.cache_key, "download"):
        cache.fetch(run)
    assert entries(tmp_path) == {run.cache_key, f"download-{in_download.cache_key}-abc"}


def test_killed_download_does_not_block_the_next(lab: Lab, tmp_path: Path) -> None:
    run = resolve_run(lab.run(lab.experiment()))
    with subprocess.Popen(
        [sys.executable, "-c", DOWNLOADING_TASK, str(tmp_path), run.cache_key], stdout=subprocess.PIPE, text=True
    ) as downloading_task:
        assert downloading_task.stdout is not None
        assert downloading_task.stdout.readline() == "downloading\n"
        cache = ModelCache(tmp_path, GIGABYTE)
        with cache._try_lock(run.cache_key, "download") as is_locked:
            assert not is_locked
        downloading_task.kill()
    assert cache.fetch(run).is_dir()


def test_missing_artifacts_raise_an_error_and_leave_no_files(lab: Lab, tmp_path: Path) -> None:
    run = resolve_run(lab.run(lab.experiment(), model="artifacts"))
    gone = ModelRun(**{**run.to_dict(), "model_uri": run.model_uri.replace(run.run_id, "0" * 32)})
    with pytest.raises((ModelNotFoundError, ModelStoreError)):
        ModelCache(tmp_path, GIGABYTE).fetch(gone)
    assert entries(tmp_path) == set()


def test_error_of_full_disk_names_the_cache_and_the_setting(lab: Lab, tmp_path: Path) -> None:
    run = resolve_run(lab.run(lab.experiment()))
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can mount the disk of its own that this test needs")
    try:
        with pytest.raises(ModelStoreError, match=f"disk of the model cache {disk}.* is full.*FRAUD_MODEL_CACHE"):
            ModelCache(disk / "cache", GIGABYTE).fetch(run)
        assert entries(disk / "cache") == set()
    finally:
        release_entries()
        subprocess.run(["umount", str(disk)], check=True)


def test_error_names_folder_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelStoreError, match="file/cache"):
        ModelCache(tmp_path / "file" / "cache", GIGABYTE).fetch(run_of())
