"""Every kind of fault that can strike a live system, and what must be seen of it for it to count.

Each takes the field, strikes a run that is at work, and returns the evidence; NoEffectError says there was none. What a
person must mend is mended here, as the error text asks for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from confluent_kafka import Consumer

from tests.soak.field import Field, NoEffectError
from tests.support.pipeline import DAG, wait_until

Strike = Callable[[Field], str]
KINDS: dict[str, Strike] = {}
FENCED = "timed out or fenced by a newer attempt"


def _kind(name: str) -> Callable[[Strike], Strike]:
    def add(strike: Strike) -> Strike:
        KINDS[name] = strike
        return strike

    return add


def _killed(task: str, *points: str) -> Strike:
    def strike(field: Field) -> str:
        point = field.random.choice(points)
        held = field.hold(point)
        field.kill(held.process)
        return f"at {point!r} its process was killed; {field.failed_try(held.run_id, task)}"

    return strike


KINDS |= {
    "kill: drain": _killed("drain", "drain", "drained"),
    "kill: resolve_model": _killed("resolve_model", "resolve"),
    "kill: predict": _killed("predict", "predict", "predicted"),
    "kill: publish, before": _killed("publish", "before fence", "before transaction"),
    "kill: publish, no offsets": _killed("publish", "published"),
    "kill: publish, offsets sent": _killed("publish", "offsets sent"),
    "kill: publish, committed": _killed("publish", "committed"),
    "kill: email": _killed("email", "mail"),
    # A server has accepted the mail and nobody could note it: it comes again, with the same Message-ID.
    "kill: email, accepted": _killed("email", "mail accepted"),
}
MAIL_AGAIN, FULL_DISK = "kill: email, accepted", "staging disk full"


@_kind("kill: worker and task")
def _worker(field: Field) -> str:
    held = field.hold(field.random.choice(("drained", "predict", "offsets sent", "committed")))
    task = _task_at_work(field, held.run_id)
    worker = held.process.parent()
    assert worker is not None
    worker.kill()
    field.kill(held.process)
    return f"worker and process of {task} killed; {field.failed_try(held.run_id, task)}"


@_kind("frozen publish")
def _frozen(field: Field) -> str:
    held = field.hold(field.random.choice(("before transaction", "published", "offsets sent")))
    worker = held.process.parent()
    assert worker is not None
    worker.suspend()
    try:
        wait_until(lambda: field.scene.tasks(held.run_id)["publish"]["try_number"] > 1, "no other try", 90)
        wait_until(lambda: field.scene.tasks(held.run_id)["publish"]["state"] == "success", "it is not done", 90)
        held.process.resume()
    finally:
        worker.resume()
    wait_until(lambda: not held.process.is_running(), "the frozen one lives on", 90)
    return f"the first try of {held.run_id} woke up after its second was done, and is gone"


@_kind("second Airflow")
def _second(field: Field) -> str:
    held = field.hold(field.random.choice(("predict", "before transaction", "offsets sent")))
    field.second("dags", "test", DAG)
    field.go_on()
    task = field.scene.tasks(held.run_id)
    wait_until(lambda: field.scene.tasks(held.run_id)["publish"]["state"] in ("success", "failed"), "no end", 120)
    log = field.scene.error(held.run_id, "publish", 1)
    for words in (FENCED, "published by another batch", "The next run drains from where the group stands"):
        if words in log:
            return f"publish of {held.run_id} said {words!r}"
    raise NoEffectError(f"nobody lost: {task['publish']['state']}")


@_kind("broker restarted")
def _restarted(field: Field) -> str:
    held = field.hold(field.random.choice(("drain", "predict", "before transaction", "offsets sent")))
    with field.producer.quiet():
        return _away(field, "kafka", held.run_id, "stop")


@_kind("broker killed")
def _broker_killed(field: Field) -> str:
    held = field.hold(field.random.choice(("drain", "predict", "before transaction")))
    with field.settled_topics():
        return _away(field, "kafka", held.run_id, "kill")


def _away(field: Field, part: str, run_id: str, ending: str) -> str:
    task, pid, began = _task_at_work(field, run_id), field.stack.pid(part), time.monotonic()
    getattr(field.stack, ending)(part)
    if psutil.pid_exists(pid):
        raise NoEffectError(f"{part} is still there")
    field.go_on()
    field.stack.start(part)
    return f"process {pid} of {part} was away for {time.monotonic() - began:.0f} s while {task} was at work in {run_id}"


def _model_store(part: str) -> Strike:
    def strike(field: Field) -> str:
        held = field.hold("resolve")
        field.stack.stop(part)
        field.go_on()
        try:
            return f"{field.failed_try(held.run_id, 'resolve_model')}, {part} was away"
        finally:
            field.stack.start(part)

    return strike


KINDS |= {"MLflow stopped": _model_store("mlflow"), "S3 stopped": _model_store("s3")}


@_kind("mail server stopped")
def _mail(field: Field) -> str:
    held = field.hold("mail")
    getattr(field.stack, field.random.choice(("stop", "kill")))("mail")
    field.go_on()
    try:
        return f"{field.failed_try(held.run_id, 'email')}; {field.says(held.run_id, 'email', 'takes no mail')}"
    finally:
        field.stack.start("mail")


@_kind("PostgreSQL stopped")
def _database(field: Field) -> str:
    held = field.hold(field.random.choice(("predict", "offsets sent", "committed")))
    evidence = _away(field, "postgres", held.run_id, field.random.choice(("stop", "kill")))
    dead = field.stack.dead_parts()
    field.stack.recover()
    return evidence + (f"; it took {', '.join(dead)} along" if dead else "")


@_kind("scheduler killed")
def _scheduler(field: Field) -> str:
    held = field.hold(field.random.choice(("drained", "predict", "offsets sent", "committed")))
    task, pid = _task_at_work(field, held.run_id), field.stack.pid("scheduler")
    field.stack.kill("scheduler")
    field.stack.start("scheduler")
    return f"scheduler {pid} killed with {task}; {field.failed_try(held.run_id, task)}"


@_kind("everything killed")
def _everything(field: Field) -> str:
    held = field.hold(field.random.choice(("drained", "predict", "before transaction", "mail")))
    task = _task_at_work(field, held.run_id)
    with field.settled_topics():
        field.stack.kill_everything()
        if held.process.is_running():
            raise NoEffectError(f"{task} lives on")
        field.stack.recover()
    return f"all parts and {task} of {held.run_id} were gone; {field.failed_try(held.run_id, task, 120)}"


def _moved(by: int | None) -> Strike:
    """During a run; the operator finds out, and puts the group back to where it stood."""

    def strike(field: Field) -> str:
        held = field.hold("before fence")
        group = field.scene.group
        with field.paused():
            stood = group.committed()
            if by is None:
                group.forget()
            else:
                group.set({0: max(0, stood[0] + by)})
            field.go_on()
            try:
                evidence = field.failed_try(held.run_id, "publish")
            finally:
                # What another partition has committed meanwhile stays.
                now = group.committed()
                field.stack.set_offsets({n: at for n, at in stood.items() if n not in now or (by and not n)})
        return f"{evidence}; {field.says(held.run_id, 'publish', 'stands at')}"

    return strike


KINDS |= {"offsets moved back": _moved(-7), "offsets moved forward": _moved(7), "offsets gone": _moved(None)}


@_kind("foreign consumer")
def _stranger(field: Field) -> str:
    settings = {"group.id": field.scene.group.name, "client.id": "a-stranger", "enable.auto.commit": False}
    held = field.hold("drain")
    stranger = Consumer({"bootstrap.servers": field.stack.bootstrap_servers} | settings)
    stranger.subscribe([field.scene.group.topic])
    until = time.monotonic() + 60
    try:
        while not stranger.assignment():
            if time.monotonic() > until:
                raise NoEffectError("the stranger could not join")
            stranger.poll(0.1)
        field.go_on()
        return f"{field.failed_try(held.run_id, 'drain')}; {field.says(held.run_id, 'drain', 'in use by a-stranger')}"
    finally:
        stranger.close()


@_kind("partitions added")
def _partitions(field: Field) -> str:
    held = field.hold("predict")
    total = len(field.scene.group.ends()) + 1
    field.scene.group.add_partitions(total)
    field.go_on()

    def taken_up() -> bool:
        field.keep_running()
        return total - 1 in field.scene.group.committed()

    wait_until(taken_up, "the new partition is not read")
    return f"partition {total - 1}, made during {held.run_id}, is read"


@_kind(FULL_DISK)
def _full(field: Field) -> str:
    point, task = field.random.choice((("drain", "drain"), ("predict", "predict"), ("committed", "publish")))
    held = field.hold(point)
    with field.stack.full_staging_disk():
        field.go_on()
        evidence = field.failed_try(held.run_id, task)
    return f"{evidence}; {field.says(held.run_id, task, '(the disk is full)')}"


def _staged_file(harm: Callable[[Path], object]) -> Strike:
    def strike(field: Field) -> str:
        held = field.hold("publish")
        name = field.random.choice(("payments", "predictions"))
        path = min(field.stack.newest_batch().glob(f"{name}-*.parquet"))
        harm(path)
        field.go_on()
        evidence = field.failed_try(held.run_id, "publish")
        # Trying again cannot mend it; the next run drains anew.
        field.scene.give_up(held.run_id, "publish")
        return f"{evidence}; {field.says(held.run_id, 'publish', path.stem)}"

    return strike


KINDS |= {
    "staged file gone": _staged_file(Path.unlink),
    "staged file damaged": _staged_file(lambda path: os.truncate(path, path.stat().st_size // 2)),
}


@_kind("model damaged")
def _model(field: Field) -> str:
    held = field.hold("predict")
    artifact = max(field.stack.model_cache.glob("*/model.pkl"), key=lambda path: path.parent.stat().st_mtime)
    size = artifact.stat().st_size
    os.truncate(artifact, size // 2)
    field.go_on()
    wait_until(lambda: artifact.exists() and artifact.stat().st_size == size, "it is not mended", 90)
    return f"{artifact.name} was cut to half in {held.run_id} and is whole again"


def _task_at_work(field: Field, run_id: str) -> str:
    # Beside the mail the next run may be asked for.
    at_work = [name for name, one in field.scene.tasks(run_id).items() if one["state"] == "running"]
    return str(next(name for name in at_work if name != "catch_up"))
