"""Measure the product's speed on this machine, beside bare loops and its peers: `python -m benchmarks [NAME …]`."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import httpx

from benchmarks.bench import Bench, BenchmarkError
from benchmarks.results import Results
from dev.stack import StackError
from include.errors import FraudError

OF_THE_DAG = ("runs", "idle", "age", "backlog")
ALWAYS = ("chain", "ledger", *OF_THE_DAG)
NAMES = (*ALWAYS, "shards", "peers", "sampling")
_QUICK = {
    "payments": 30_000,
    "sittings": 1,
    "run_payments": [0, 1_000],
    "minutes": 1.0,
    "idle_minutes": 1.0,
    "rates": [1, 100],
    "backlog": 300_000,
    "seeds": 1,
}


def main() -> int:
    """Run the named benchmarks, or all, and return the exit code."""
    parser = _parser()
    given = parser.parse_args()
    if given.quick:
        parser.set_defaults(**_QUICK)
        given = parser.parse_args()
    if unknown := [name for name in given.names if name not in NAMES]:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    bench = Bench(given.home)
    results = Results(given.json or bench.home / "results.json")
    try:
        if not given.no_run:
            _run(bench, results, given)
    except KeyboardInterrupt:
        bench.say("interrupted; what was measured so far is kept")
        return 130
    except (BenchmarkError, StackError, FraudError, httpx.HTTPError, TimeoutError, subprocess.SubprocessError) as error:
        sys.stderr.write(f"benchmarks: {error}\n")
        return 1
    results.show()
    if given.write_docs:
        results.write_docs()
    return 0


def _run(bench: Bench, results: Results, given: argparse.Namespace) -> None:
    """Run the named benchmarks.

    Airflow would slow the chain and the peers, and shards has its own stack. The other benchmarks share one stack.
    """
    names = given.names or ALWAYS
    for alone in (True, False):
        chosen = [name for name in names if (name not in OF_THE_DAG) == alone]
        with nullcontext() if alone or not chosen else bench.running(airflow=True, shards=given.dag_shards):
            for name in chosen:
                bench.say(f"--- {name}")
                results.add(name, _MEASURES[name](bench, given))


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


# Each is imported when it runs: --help and tables of earlier results need no heavy module.
def _chain(bench: Bench, given: argparse.Namespace) -> dict[str, Any]:
    from benchmarks import chain

    return chain.measure(bench, count=given.payments, sittings=given.sittings, shards=tuple(given.shards))


def _runs(bench: Bench, given: argparse.Namespace) -> dict[str, Any]:
    from benchmarks import runs

    return runs.measure(bench, counts=tuple(given.run_payments), sittings=given.sittings, shards=given.dag_shards)


def _idle(bench: Bench, given: argparse.Namespace) -> dict[str, Any]:
    from benchmarks import idle

    return idle.measure(bench, minutes=given.idle_minutes, shards=given.dag_shards)


def _age(bench: Bench, given: argparse.Namespace) -> dict[str, Any]:
    from benchmarks import age

    return age.measure(bench, rates=tuple(given.rates), minutes=given.minutes, shards=given.dag_shards)


def _backlog(bench: Bench, given: argparse.Namespace) -> dict[str, Any]:
    from benchmarks import backlog

    return backlog.measure(bench, count=given.backlog, shards=given.dag_shards)


def _shards(bench: Bench, given: argparse.Namespace) -> dict[str, Any]:
    from benchmarks import shards

    numbers = tuple(given.worker_shards)
    return shards.measure(
        Bench(bench.home, celery=True), count=given.payments, sittings=given.sittings, numbers=numbers
    )


def _ledger(bench: Bench, given: argparse.Namespace) -> dict[str, Any]:
    from benchmarks import ledger_bench

    return ledger_bench.measure(bench, count=given.payments, sittings=given.sittings)


def _peers(bench: Bench, given: argparse.Namespace) -> dict[str, Any]:
    from benchmarks.peers import measure

    return measure.measure(bench, count=given.payments, sittings=given.sittings, shards=tuple(given.shards))


def _sampling(bench: Bench, given: argparse.Namespace) -> dict[str, Any]:
    from benchmarks import sampling

    return sampling.measure(bench, seeds=given.seeds)


_MEASURES: dict[str, Callable[[Bench, argparse.Namespace], dict[str, Any]]] = {
    "chain": _chain,
    "ledger": _ledger,
    "shards": _shards,
    "runs": _runs,
    "idle": _idle,
    "age": _age,
    "backlog": _backlog,
    "peers": _peers,
    "sampling": _sampling,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    default = f"default: {', '.join(ALWAYS)}"
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; {default}")
    add = parser.add_argument
    home = os.environ.get("FRAUD_BENCHMARKS_HOME", ".local/benchmarks")
    add(
        "--home",
        type=Path,
        default=Path(home),
        help="its stack, its forest and the peers' environments (default %(default)s)",
    )
    add("--json", type=Path, help="the results, added to what is there (default results.json in the home)")
    add(
        "--payments",
        type=int,
        default=300_000,
        help="of one measurement of chain, ledger and peers (default %(default)s)",
    )
    add("--sittings", type=int, default=5, help="how often each contender takes its turn (default %(default)s)")
    add("--shards", type=int, nargs="+", default=[1, 2], help="of the product in chain and peers (default 1 2)")
    add("--worker-shards", type=int, nargs="+", default=[1, 2, 3, 6], help="of the runs in shards (default 1 2 3 6)")
    add("--dag-shards", type=int, default=1, help="of the DAG in runs, idle, age and backlog (default %(default)s)")
    add(
        "--run-payments",
        type=int,
        nargs="+",
        default=[0, 100, 10_000, 300_000],
        help="of the runs (default %(default)s)",
    )
    add("--minutes", type=float, default=4.0, help="of each rate in age (default %(default)s)")
    add("--idle-minutes", type=float, default=10.0, help="of each stretch in idle (default %(default)s)")
    add(
        "--rates", type=float, nargs="+", default=[1, 100, 5_000], help="payments a second in age (default %(default)s)"
    )
    add("--backlog", type=int, default=3_000_000, help="payments that wait (default %(default)s)")
    add("--seeds", type=int, default=8, help="of the trainings in sampling (default %(default)s)")
    add("--quick", action="store_true", help="small sizes, to see that it works: its figures mean nothing")
    add("--no-run", action="store_true", help="only show the results that are there")
    add(
        "--write-docs",
        action="store_true",
        help="write the tables of docs/benchmarks.md and its plots, and that of docs/training.md, from the results",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
