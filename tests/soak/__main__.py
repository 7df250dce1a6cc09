"""Sends payments at a steady rate during a seeded schedule of faults; at the end no payment is lost or double.

    python -m tests.soak --minutes 30 --seed 7

Exit code 0 only if each payment came out once and unchanged, each fraud was reported once, and enough faults counted:
a fault counts if it hit a run at work and its effect was observed. It starts and stops a stack of its own.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import psutil
from confluent_kafka import KafkaException

from dev.stack import StackError
from include.errors import FraudError
from tests.soak import data_faults, processes, recording  # noqa: F401 (they name the kinds)
from tests.soak.context import FaultContext, NoEffectError
from tests.soak.producer import SteadyProducer
from tests.soak.proof import Proof
from tests.soak.registry import FULL_DISK, KINDS, MAIL_AGAIN
from tests.soak.tally import FaultResult, Tally
from tests.support.commands import AirflowInTurn, second_airflow
from tests.support.fault_scenario import FaultScenario
from tests.support.fault_stack import FaultStack, open_fault_stack
from tests.support.pipeline import DAG, Pipeline
from tests.support.two_models import two_models

# A fault that ends so does not count; whether the pipeline has recovered is another question.
UNSEEN = (
    NoEffectError, AssertionError, TimeoutError, BrokenPipeError, psutil.Error, httpx.HTTPError, KafkaException,
    StackError, FraudError,
)  # fmt: skip
# At thirty minutes, what the promise asks for. Shorter soaks are held to their share.
FULL_MINUTES, FULL_COUNTED, FULL_EACH = 30, 60, 3


def say(text: str) -> None:
    sys.stdout.write(f"{datetime.now(UTC):%H:%M:%S} {text}\n")
    sys.stdout.flush()


def main() -> int:
    arguments = _parser().parse_args()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _end)
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(10**6)
    say(f"seed {seed}, {arguments.minutes:g} minutes, {arguments.rate} payments a second")
    home = Path(arguments.home) if arguments.home else Path(tempfile.mkdtemp(prefix="soak-"))
    with ExitStack() as held:
        if not arguments.home:
            held.callback(shutil.rmtree, home, ignore_errors=True)
        stack = held.enter_context(open_fault_stack(home, by_hand=False))
        soak = Soak(stack, held, seed=seed, rate=arguments.rate)
        try:
            soak.strike_for(arguments.minutes * 60)
        finally:
            soak.producer.end()
        result = soak.judge(arguments.minutes)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=1))
    without = f", without {', '.join(result['left_out'])}" if result["left_out"] else ""
    say(f"{'passed' if not result['problems'] else 'FAILED'}{without}; seed {seed}; {arguments.output}")
    return int(bool(result["problems"]))


class Soak:
    def __init__(self, stack: FaultStack, held: ExitStack, *, seed: int, rate: int) -> None:
        models = held.enter_context(two_models(stack))
        self.seed, self.stack = seed, stack
        self.random = random.Random(seed)
        self.pipeline = Pipeline(stack, models)
        self.pipeline.api.wait_for_dag(DAG)
        self.pipeline.api.pause(DAG, False)
        # A stack that was kept may have something to do still.
        FaultScenario(stack, self.pipeline).process_backlog(runs=60, state=None)
        self.scenario = FaultScenario(stack, self.pipeline, seed)
        self.producer = SteadyProducer(stack.bootstrap_servers, rate, seed)
        other = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="soak-second-")))
        second = held.enter_context(AirflowInTurn(second_airflow(stack.env, other)))
        self.proof = Proof(self.scenario)
        self.context = FaultContext(self.scenario, self.producer, self.proof, second, self.random)
        self.kinds = [kind for kind in KINDS if kind != FULL_DISK or stack.staging_is_small]
        self.left_out = sorted(set(KINDS) - set(self.kinds))
        if self.left_out:
            say(f"without {FULL_DISK!r}: no small disk can be mounted here")
        self.tally = Tally(self.kinds)
        self.began = time.monotonic()
        self.problems: list[str] = []

    def strike_for(self, seconds: float) -> None:
        self.producer.start()
        self.began = time.monotonic()
        for kind in self._schedule():
            if time.monotonic() - self.began > seconds:
                return
            self.tally.planned[kind] += 1
            try:
                self._strike(kind)
            except AssertionError as error:
                self.problems.append(f"after {kind}: {error}")
                return

    def _schedule(self) -> Iterator[str]:
        """Yield the kinds of fault, round after round in random order; those that counted less often come first."""
        while True:
            kinds = list(self.kinds)
            self.random.shuffle(kinds)
            yield from sorted(kinds, key=self.tally.counted)

    def _strike(self, kind: str) -> None:
        at = time.monotonic() - self.began
        backlog = self.context.backlog()
        try:
            evidence, counted = KINDS[kind](self.context), True
        except UNSEEN as error:
            evidence, counted = f"{type(error).__name__}: {str(error)[:300]}", False
        self.pipeline.breakpoint.clear()
        struck = time.monotonic()
        self.stack.recover()
        self.context.await_recovery(backlog)
        recovery = time.monotonic() - struck
        self.tally.add(FaultResult(kind, round(at, 1), counted, evidence, round(recovery, 1)))
        mark = "" if counted else "NOT COUNTED: "
        say(f"{self.tally.counted():>3} {kind}: {mark}{evidence}; recovered in {recovery:.0f} s")

    def judge(self, minutes: float) -> dict[str, Any]:
        """Score what waits, then check the topics and the mailbox."""
        say(f"{self.producer.sent} payments sent, {self.producer.failed} portions refused; working off what waits")
        self.pipeline.breakpoint.clear()
        self.stack.recover()
        self.scenario.process_backlog(runs=60, state=None)
        self.pipeline.rest()
        self.context.ledger.process_backlog(state=None)
        self.proof.ledger(self.context.ledger)
        self.proof.prove(self.scenario.group.ends())
        self.proof.outputs()
        self.proof.mails(self.tally.counted(MAIL_AGAIN))
        problems = self.problems + self.proof.problems
        if self.producer.ended_by:
            problems.append(f"the producer ended by itself: {self.producer.ended_by}")
        each, counted = _least(minutes)
        few = [kind for kind in self.kinds if self.tally.counted(kind) < each]
        problems += [f"{kind}: {self.tally.counted(kind)} counted, {each} wanted" for kind in few]
        if self.tally.counted() < counted:
            problems.append(f"{self.tally.counted()} faults counted, {counted} wanted")
        figures = dict(self.proof.figures)
        say(f"faults survived\n{self.tally.table()}\n")
        say(
            ", ".join(f"{name} {value:,}" for name, value in figures.items())
            + f", reports {len(self.scenario.mailed())}"
        )
        for problem in problems:
            say(f"PROBLEM {problem}")
        return {
            "seed": self.seed, "minutes": minutes, "counted": self.tally.counted(), "topics": figures,
            "reports": len(self.scenario.mailed()), "faults": self.tally.to_json(), "left_out": self.left_out,
            "problems": problems,
        }  # fmt: skip


def _least(minutes: float) -> tuple[int, int]:
    """Return the required number of faults: of each kind, and in total."""
    share = min(1.0, minutes / FULL_MINUTES)
    return int(FULL_EACH * share), int(FULL_COUNTED * share)


def _end(number: int, frame: FrameType | None) -> None:
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # a second one would cut the stopping short
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=30, help="for so long faults strike (default 30)")
    parser.add_argument("--seed", type=int, help="of the schedule and the payments; without it one is chosen and said")
    parser.add_argument("--rate", type=int, default=100, help="payments a second (default 100)")
    parser.add_argument("--home", help="keep the stack here, and take it if it runs (default: a temporary folder)")
    parser.add_argument(
        "--output", type=Path, default=Path(".local/soak.json"), help="result as JSON (default .local/soak.json)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
