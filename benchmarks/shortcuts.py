"""Measure what each shortcut in the code saves: processor time with it and without it, in turns.

    .venv/bin/python -m benchmarks.shortcuts [decode leaf_order pickle_cache preload] [--rounds 5]

It needs no stack. A busy machine stretches both sides alike, so the ratio is the result.
"""

# ruff: noqa: SLF001  # what it measures are private parts of modules
from __future__ import annotations

import argparse
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

MESSAGES, MESSAGES_AT_ONCE = 50_000, 1_000
SCORED = 10_000
Work = Callable[[], object]


@dataclass(frozen=True)
class _After:
    """Work whose time begins after `before`."""

    before: Work
    work: Work

    def __call__(self) -> object:
        return self.work()


def main() -> None:
    """Measure the shortcuts named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    for name in given.names or _SHORTCUTS:
        for what, short, long in _SHORTCUTS[name]():
            seconds = [(_seconds(short), _seconds(long)) for _ in range(given.rounds)]
            ratios = sorted(one / other for one, other in seconds)
            with_it, without = (statistics.median(times) for times in zip(*seconds, strict=True))
            print(
                f"{what}: {with_it:.3f} s with, {without:.3f} s without; ratio {statistics.median(ratios):.2f} "
                f"({ratios[0]:.2f} to {ratios[-1]:.2f})",
                flush=True,
            )


def _seconds(work: Work) -> float:
    """Return the processor seconds of `work` in a forked process, where nothing stays warm for the next round."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            if isinstance(work, _After):
                work.before()
            # As the steps do: the collector would look at millions of objects again and again.
            gc.disable()
            began = time.process_time()
            work()
            os.write(writer, str(time.process_time() - began).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return float(answer)


def _decode() -> list[tuple[str, Work, Work]]:
    """Stage messages column by column (`_PartitionBuffer._add_payments`), or each by itself (`_add_results`)."""
    from benchmarks.payments import messages
    from include.batch import drain
    from include.batch.manifest import PartitionBatch
    from include.payments.decode import Decoder

    known: Any = [_Message(number, **one) for number, one in enumerate(messages(MESSAGES))]
    chunks = [known[at : at + MESSAGES_AT_ONCE] for at in range(0, MESSAGES, MESSAGES_AT_ONCE)]

    def columns() -> None:
        slot, decoder = drain._PartitionBuffer(PartitionBatch(0, 0, MESSAGES, None)), Decoder()
        for chunk in chunks:
            list(slot.add(chunk, decoder))

    def one_by_one() -> None:
        slot, decoder = drain._PartitionBuffer(PartitionBatch(0, 0, MESSAGES, None)), Decoder()
        for chunk in chunks:
            for message in chunk:
                drain._add_results(slot.columns, message, message.value(), decoder)

    return [(f"decode {MESSAGES:,} messages", columns, one_by_one)]


class _Message:
    """A message as drain reads it."""

    def __init__(self, offset: int, key: bytes, value: bytes) -> None:
        self.offset, self.key, self.value = (lambda: offset), (lambda: key), (lambda: value)

    def headers(self) -> None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return 1, 0


def _leaf_order() -> list[tuple[str, Work, Work]]:
    """Ask a forest in the order of its first tree's leaves, or in the order of the rows."""
    from include.models.classifier import _predict_sorted_by_leaf

    pipeline, rows = _pipeline()
    forest = pipeline.steps[-1][1]
    forest.n_jobs = 1
    frame = pipeline[:1].transform(rows)
    plain = forest.predict_proba
    short = partial(_predict_sorted_by_leaf, forest, plain, frame)
    return [(f"score {SCORED:,} rows", short, partial(plain, frame))]


def _pickle_cache() -> list[tuple[str, Work, Work]]:
    """Load the pickle of a model that skops built before, or have skops build it."""
    import skops.io

    from include.models import pickle_cache, trust
    from include.models.features_module import register_module

    types = (*trust.TRUSTED_TYPES, f"{register_module()}.PaymentFeatures")
    folder = Path(tempfile.mkdtemp())
    skops.io.dump(_pipeline()[0], folder / "model.skops")
    build = partial(skops.io.load, folder / "model.skops", trusted=types)
    load = partial(pickle_cache.load_or_build, folder, build, trusted_types=types)
    load()
    return [("load a model", load, build)]


def _preload() -> list[tuple[str, Work, Work]]:
    """Make the first S3 client of a process whose parent has read boto3's description of S3, or has not."""
    import boto3

    from include import preload

    client = partial(boto3.client, "s3", region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b")  # noqa: S106
    return [("make the first S3 client", _After(preload._load_s3_description, client), client)]


@cache
def _pipeline() -> tuple[Any, Any]:
    """Return the forest of the other benchmarks in its pipeline, and payments to score."""
    from benchmarks.forest import SEED, TREES, training_payments
    from include.producer.simulator import Simulator
    from include.training.pipeline import pipeline_config

    config = pipeline_config("numeric", TREES, SEED, "smote")
    pipeline, _ = config.fit(training_payments(), Path())
    return pipeline, Simulator(SEED + 1).frame(SCORED)[list(config.columns)]


_SHORTCUTS: dict[str, Callable[[], list[tuple[str, Work, Work]]]] = {
    "decode": _decode,
    "leaf_order": _leaf_order,
    "pickle_cache": _pickle_cache,
    "preload": _preload,
}


if __name__ == "__main__":
    main()
