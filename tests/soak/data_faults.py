"""Faults of data: what operators, strangers and disks do to offsets, the topic, staged files and models."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.soak.context import Field, NoEffectError
from tests.soak.registry import FULL_DISK, KINDS, Strike, kind
from tests.support.fault_scenario import DEAD_LETTERS, OUTPUT
from tests.support.waiting import wait_until

_EXPIRED = 20


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
                evidence = field.failed_try(held, "publish")
            finally:
                # What another partition has committed meanwhile stays.
                now = group.committed()
                field.stack.set_offsets({n: at for n, at in stood.items() if n not in now or (by and not n)})
        return f"{evidence}; {field.says(held, 'publish', 'the committed offset of group')}"

    return strike


KINDS |= {"offsets moved back": _moved(-7), "offsets moved forward": _moved(7), "offsets gone": _moved(None)}


@kind("foreign consumer")
def _stranger(field: Field) -> str:
    held = field.hold("plan")
    with field.scene.group.joined_by_stranger():
        field.go_on()
        return f"{field.failed_try(held, 'plan')}; {field.says(held, 'plan', 'in use by a-stranger')}"


@kind("partitions added")
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


@kind("payments expired unread")
def _expired(field: Field) -> str:
    """Before plan has looked. What was published of that partition is proven now: soon the topic has it no more."""
    held = field.hold("plan")
    group = field.scene.group
    committed = group.committed()
    if not committed:
        raise NoEffectError("nothing is committed yet")
    partition = field.random.choice(sorted(committed))
    wait_until(lambda: group.ends()[partition] - committed[partition] >= _EXPIRED, "nothing waits", 30)
    field.proof.prove({partition: committed[partition]})
    first = committed[partition] + _EXPIRED
    group.expire({partition: first})
    field.proof.start[partition] = first
    field.go_on()
    field.scene.await_task(held.run_id, "plan", ("success",))
    told = f"{_EXPIRED} offsets from {committed[partition]} to {first} expired before they were read"
    return field.says(held, "plan", told)


@kind("topic made again")
def _made_again(field: Field) -> str:
    """With payments on the way. The operator finds out, and says where to begin."""
    held = field.hold("publish")
    group = field.scene.group
    with field.producer.quiet(), field.paused():
        field.proof.prove(group.committed())
        field.proof.begin_anew()
        partitions = len(group.ends())
        group.make_topic_again(partitions)
        field.producer.begin_anew()
        field.go_on()
        try:
            evidence = field.failed_try(held, "publish")
        finally:
            # Places of the new topic are those of the old one: only empty outputs can be judged.
            group.empty(OUTPUT, DEAD_LETTERS)
            field.stack.set_offsets(dict.fromkeys(range(partitions), 0))
    return f"{evidence}; {field.says(held, 'publish', 'was deleted and recreated')}"


@kind(FULL_DISK)
def _full(field: Field) -> str:
    point, task = field.random.choice((("drain", "drain"), ("predict", "predict"), ("committed", "publish")))
    held = field.hold(point)
    with field.stack.full_staging_disk():
        field.go_on()
        evidence = field.failed_try(held, task)
    return f"{evidence}; {field.says(held, task, '(the disk is full)')}"


def _turn_a_bit(path: Path, random: Random) -> None:
    content = bytearray(path.read_bytes())
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(content)


def _staged_file(harm: Callable[[Path, Random], object]) -> Strike:
    def strike(field: Field) -> str:
        held = field.hold("publish")
        name = field.random.choice(("payments", "predictions"))
        path = min(field.stack.newest_batch().rglob(f"{name}-*.parquet"))
        harm(path, field.random)
        field.go_on()
        evidence = field.failed_try(held, "publish")
        # Trying again cannot mend it; the next run drains anew.
        field.scene.give_up(held.run_id, "publish")
        return f"{evidence}; {field.says(held, 'publish', path.stem)}"

    return strike


KINDS |= {
    "staged file gone": _staged_file(lambda path, _: path.unlink()),
    "staged file damaged": _staged_file(_turn_a_bit),
}


@kind("model damaged")
def _model(field: Field) -> str:
    held = field.hold("predict")
    artifact = max(field.stack.model_cache.glob("*/model.pkl"), key=lambda path: path.parent.stat().st_mtime)
    size = artifact.stat().st_size
    os.truncate(artifact, size // 2)
    field.go_on()
    wait_until(lambda: artifact.exists() and artifact.stat().st_size == size, "it is not mended", 90)
    return f"{artifact.name} was cut to half in {held.run_id} and is whole again"
