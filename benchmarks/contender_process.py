"""Run one step of a contender in a process of its own: `python -m benchmarks.contender_process STEP`.

The process reads its task as a line of JSON, prepares the step and prints a line with "ready". After any second line it
runs the step and prints what it measured.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.contender_task import Task, Work


def main() -> None:
    """Run the step that the command line names."""
    logging.basicConfig(level=logging.WARNING)
    task = Task(**json.loads(sys.stdin.readline()))
    prepare = STEPS[sys.argv[1]]
    began = time.monotonic()
    work = prepare(task)
    print(json.dumps({"ready": time.monotonic() - began}), flush=True)
    sys.stdin.readline()
    began, cpu = time.monotonic(), time.process_time()
    found = work()
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak_mb": _peak_mb(), **found}), flush=True)


def _peak_mb() -> float:
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    # On Linux, getrusage's maximum includes the memory of the process that forked this one.
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024 / 1e6


def _product(task: Task) -> tuple[Any, Any, Any]:
    from include.kafka.cluster import Cluster
    from include.settings import Settings
    from include.storage.staging import Storage

    settings = Settings(
        input_topic=task.topic,
        output_topic=task.output,
        dead_letter_topic=task.output,
        group=task.group,
        shards=task.shards,
        max_payments=task.most,
        staging_url=task.staging,
        model_cache=Path(task.cache),
        # More than the setting allows, so that no step ends early.
    ).override(max_seconds=3600)
    return Cluster(task.kafka), settings, Storage.open(task.staging)


def plan(task: Task) -> Work:
    """Prepare the product's step plan."""
    from include.batch.planner import plan

    cluster, settings, storage = _product(task)

    def work() -> dict[str, Any]:
        manifest = plan(cluster, settings.override(shards=task.shards), storage, run_id="benchmark", run_url="")
        return {"batch": manifest.batch_id}

    return work


def drain(task: Task) -> Work:
    """Prepare the product's step drain."""
    from include.batch.drain import drain
    from include.batch.manifest import Manifest

    cluster, settings, storage = _product(task)
    manifest = Manifest.load_plan(storage, task.batch)

    def work() -> dict[str, Any]:
        drained = drain(cluster, settings, storage, manifest, task.shard)
        return {"payments": sum(part.payments for part in drained.partitions)}

    return work


def predict(task: Task) -> Work:
    """Prepare the product's step predict. The model's loading is not part of the rate; its seconds are reported."""
    import include.models.load as loading
    from include.batch.manifest import Manifest
    from include.batch.predict import predict
    from include.models import scoring
    from include.models.model_cache import ModelCache
    from include.models.model_run import ModelRun

    _, settings, storage = _product(task)
    run = ModelRun.from_dict(task.run)
    began = time.monotonic()
    model = loading.load(run, ModelCache(settings.model_cache, int(1e10)).fetch(run))
    loaded = time.monotonic() - began
    loading.load = lambda run, folder, *, allow_pickles=True: model
    manifest = Manifest.load(storage, task.batch)
    del scoring  # imported ahead, as the scheduler's preload does

    def work() -> dict[str, Any]:
        scored = predict(settings, storage, manifest, run, task.shard)
        return {"payments": scored.scored, "frauds": scored.frauds, "model_seconds": loaded}

    return work


def publish(task: Task) -> Work:
    """Prepare the product's step publish."""
    from include.batch.manifest import Manifest
    from include.batch.publish import publish

    cluster, settings, storage = _product(task)
    manifest = Manifest.load(storage, task.batch)

    def work() -> dict[str, Any]:
        return {"payments": publish(cluster, settings, storage, manifest, shard=task.shard).predictions}

    return work


def _bare(name: str) -> Callable[[Task], Work]:
    def prepare(task: Task) -> Work:
        from benchmarks import bare_loops

        found: Work = getattr(bare_loops, name)(task)
        return found

    return prepare


STEPS: dict[str, Callable[[Task], Work]] = {
    "plan": plan,
    "drain": drain,
    "predict": predict,
    "publish": publish,
    **{f"bare_{name}": _bare(name) for name in ("drain", "predict", "publish", "chain")},
}

if __name__ == "__main__":
    main()
