"""Faults of data: changed offsets, topics, staged files and models, and full disks."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.soak.context import FaultContext, NoEffectError
from tests.soak.registry import FULL_DISK, KINDS, Strike, kind
from tests.support.fault_scenario import DEAD_LETTERS, OUTPUT
from tests.support.waiting import wait_until

_EXPIRED = 20


def _moved(by: int | None) -> Strike:
    """Move the group's offsets during a run; the operator notices and sets them back."""

    def strike(context: FaultContext) -> str:
        held = context.hold("before fence")
        group = context.scenario.group
        with context.paused():
            stood = group.committed()
            if by is None:
                group.forget()
            else:
                group.set({0: max(0, stood[0] + by)})
            context.go_on()
            try:
                evidence = context.failed_try(held, "publish")
            finally:
                # What another partition has committed meanwhile stays.
                now = group.committed()
                context.stack.set_offsets({n: at for n, at in stood.items() if n not in now or (by and not n)})
        return f"{evidence}; {context.says(held, 'publish', 'the committed offset of group')}"

    return strike


KINDS |= {"offsets moved back": _moved(-7), "offsets moved forward": _moved(7), "offsets gone": _moved(None)}


@kind("foreign consumer")
def _stranger(context: FaultContext) -> str:
    held = context.hold("plan")
    with context.scenario.group.joined_by_stranger():
        context.go_on()
        return f"{context.failed_try(held, 'plan')}; {context.says(held, 'plan', 'in use by a-stranger')}"


@kind("partitions added")
def _partitions(context: FaultContext) -> str:
    held = context.hold("predict")
    total = len(context.scenario.group.ends()) + 1
    context.scenario.group.add_partitions(total)
    context.go_on()

    def taken_up() -> bool:
        context.keep_running()
        return total - 1 in context.scenario.group.committed()

    wait_until(taken_up, "the new partition is not read")
    return f"partition {total - 1}, made during {held.run_id}, is read"


@kind("payments expired unread")
def _expired(context: FaultContext) -> str:
    """Expire payments before plan reads the offsets. The partition's output is verified before that."""
    held = context.hold("plan")
    group = context.scenario.group
    committed = group.committed()
    if not committed:
        raise NoEffectError("nothing is committed yet")
    partition = context.random.choice(sorted(committed))
    wait_until(lambda: group.ends()[partition] - committed[partition] >= _EXPIRED, "nothing waits", 30)
    context.proof.prove({partition: committed[partition]})
    first = committed[partition] + _EXPIRED
    group.expire({partition: first})
    context.proof.start[partition] = first
    context.go_on()
    context.scenario.await_task(held.run_id, "plan", ("success",))
    told = f"{_EXPIRED} offsets from {committed[partition]} to {first} expired before they were read"
    return context.says(held, "plan", told)


@kind("topic made again")
def _made_again(context: FaultContext) -> str:
    """Recreate the topic during a run; the operator notices and sets the offsets."""
    held = context.hold("publish")
    group = context.scenario.group
    with context.producer.quiet(), context.paused():
        context.proof.prove(group.committed())
        context.proof.reset()
        partitions = len(group.ends())
        group.make_topic_again(partitions)
        context.producer.reset()
        context.go_on()
        try:
            evidence = context.failed_try(held, "publish")
        finally:
            # Places of the new topic are those of the old one: only empty outputs can be judged.
            group.empty(OUTPUT, DEAD_LETTERS)
            context.stack.set_offsets(dict.fromkeys(range(partitions), 0))
    return f"{evidence}; {context.says(held, 'publish', 'was deleted and recreated')}"


@kind(FULL_DISK)
def _full(context: FaultContext) -> str:
    point, task = context.random.choice((("drain", "drain"), ("predict", "predict"), ("committed", "publish")))
    held = context.hold(point)
    with context.stack.full_staging_disk():
        context.go_on()
        evidence = context.failed_try(held, task)
    return f"{evidence}; {context.says(held, task, '(the disk is full)')}"


def _turn_a_bit(path: Path, random: Random) -> None:
    content = bytearray(path.read_bytes())
    content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    path.write_bytes(content)


def _staged_file(harm: Callable[[Path, Random], object]) -> Strike:
    def strike(context: FaultContext) -> str:
        held = context.hold("publish")
        name = context.random.choice(("payments", "predictions"))
        path = min(context.stack.newest_batch().rglob(f"{name}-*.parquet"))
        harm(path, context.random)
        context.go_on()
        evidence = context.failed_try(held, "publish")
        # Trying again cannot mend it; the next run drains anew.
        context.scenario.give_up(held.run_id, "publish")
        return f"{evidence}; {context.says(held, 'publish', path.stem)}"

    return strike


KINDS |= {
    "staged file gone": _staged_file(lambda path, _: path.unlink()),
    "staged file damaged": _staged_file(_turn_a_bit),
}


@kind("model damaged")
def _model(context: FaultContext) -> str:
    held = context.hold("predict")
    artifact = max(context.stack.model_cache.glob("*/model.pkl"), key=lambda path: path.parent.stat().st_mtime)
    size = artifact.stat().st_size
    os.truncate(artifact, size // 2)
    context.go_on()
    wait_until(lambda: artifact.exists() and artifact.stat().st_size == size, "it is not mended", 90)
    return f"{artifact.name} was cut to half in {held.run_id} and is whole again"
