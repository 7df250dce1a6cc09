"""One fault case: sends payments and rough messages, triggers runs, and checks the output.

The output is checked from the topics alone, and the mailbox against the output topic.
"""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import httpx

from include.settings import Settings
from include.verify.findings import TOPIC_KINDS, VerifyReport
from include.verify.verification import verify
from include.verify.window import Bounds
from tests.support import kafka_log
from tests.support.fault_stack import FaultStack
from tests.support.group import Group
from tests.support.mail import Inbox
from tests.support.mailed import (
    MailedReport,
    Place,
    Window,
    check_mailed,
    is_fraud,
    is_in,
    mailed_reports,
    payment_of,
    place_of,
)
from tests.support.payments import FRAUD_FOR_BOTH, GENUINE, payments
from tests.support.pipeline import DAG, Pipeline, reports
from tests.support.rough_payments import mixed, tokens
from tests.support.topics import Arrived, Reader
from tests.support.waiting import wait_until

OUTPUT, DEAD_LETTERS = "topic_2", "topic_1_dead_letters"
# By the amount; see tests/support/two_models.py.
_LABELS = {GENUINE: "0", FRAUD_FOR_BOTH: "1"}
# What a publish says that was shut out.
FENCED = "timed out or fenced by a newer attempt"


class FaultScenario:
    def __init__(self, stack: FaultStack, pipeline: Pipeline, seed: int = 0) -> None:
        self.stack, self.pipeline, self.api = stack, pipeline, pipeline.api
        self.breakpoint = pipeline.breakpoint
        self.group = Group(stack.bootstrap_servers)
        self._random = random.Random(seed)
        self.inbox = Inbox(stack.maildir)
        self.start = self.group.committed_if_settled() or {}
        self._readers = self._new_readers()

    def _new_readers(self) -> tuple[Reader, Reader]:
        """Return readers of the output topic and of the dead letters."""
        servers = self.stack.bootstrap_servers
        return Reader(servers, OUTPUT), Reader(servers, DEAD_LETTERS)

    def reset(self) -> None:
        """Ignore all output so far, because the input topic is about to be recreated."""
        self.start = {}
        self._readers = self._new_readers()

    # What goes in.

    def send(self, frauds: int = 6, genuine: int = 24, rough: bool = True) -> int:
        """Send messages to all partitions in turn, and return their number."""
        plain = [
            tokens(one.values, one.values.values())
            for one in payments(*[FRAUD_FOR_BOTH] * frauds, *[GENUINE] * genuine)
        ]
        sent = mixed(plain, self._random.randrange(2**32), each=1 if rough else 0, few=0)
        partitions = sorted(self.group.ends())
        client = kafka_log.producer(self.stack.bootstrap_servers)
        for number, one in enumerate(sent):
            client.produce(
                self.group.topic, one.value, one.key, partitions[number % len(partitions)], headers=one.headers
            )
            client.poll(0)
        assert client.flush(60) == 0
        return len(sent)

    # Runs.

    def trigger(self, conf: Mapping[str, Any] | None = None) -> str:
        return str(with_retries(lambda: self.api.trigger(DAG, conf)))

    def finish(
        self, run_id: str, state: str | None = "success", seconds: float = 300, *, restart: bool = False
    ) -> dict[str, Any]:
        """Wait for the end of a run and return its tasks by name. With `restart`, start dead parts again."""
        deadline = time.monotonic() + seconds
        while (run := with_retries(lambda: self.api.run(DAG, run_id)))["state"] not in ("success", "failed"):
            assert time.monotonic() < deadline, (
                f"{run_id} is still {run['state']} after {seconds:.0f} s: {self._told(run_id)}"
            )
            if restart:
                self.stack.recover()
            time.sleep(0.2)
        assert state is None or run["state"] == state, self._told(run_id)
        return self.tasks(run_id)

    def run(self, state: str | None = "success", conf: Mapping[str, Any] | None = None) -> str:
        run_id = self.trigger(conf)
        self.finish(run_id, state)
        return run_id

    def tasks(self, run_id: str) -> dict[str, Any]:
        return dict(with_retries(lambda: self.api.tasks(DAG, run_id)))

    def await_task(self, run_id: str, task: str, states: Iterable[str], attempt: int = 1, seconds: float = 180) -> None:
        wanted = tuple(states)

        def there() -> bool:
            now = self.tasks(run_id)[task]
            return now["state"] in wanted and now["try_number"] >= attempt

        wait_until(there, f"{task} did not become {' or '.join(wanted)}", seconds)

    def give_up(self, run_id: str, task: str) -> None:
        """Let a task fail as if no retry were left."""
        self.await_task(run_id, task, ("up_for_retry", "failed"), seconds=300)
        path = f"dags/{DAG}/dagRuns/{run_id}/taskInstances/{task}/{self.tasks(run_id)[task]['map_index']}"
        if self.tasks(run_id)[task]["state"] != "failed":
            self.api.request("PATCH", path, json={"new_state": "failed"})

    def stop_at(self, point: str, times: int = 1) -> tuple[str, int]:
        """Trigger a run and wait until a task stops at the breakpoint. Return the run's id and the process id."""
        self.breakpoint.set(point, times)
        run_id = self.trigger()
        return run_id, self.breakpoint.wait()

    def error(self, run_id: str, task: str, attempt: int | None = None) -> str:
        """Return the log of a try, by default the last one."""
        number = attempt or self.tasks(run_id)[task]["try_number"]
        return str(with_retries(lambda: self.pipeline.log(run_id, task, number)))

    def await_words(self, run_id: str, task: str, words: str, attempt: int | None = None, seconds: float = 30) -> None:
        """Wait until the log has these words: it may be later than the task's state."""
        wait_until(lambda: words in self.error(run_id, task, attempt), f"{task} does not say {words!r}", seconds)

    def last_words(self, run_id: str, task: str, attempt: int | None = None) -> str:
        """Return the last lines of a log: the error that was raised."""
        log = self.error(run_id, task, attempt)
        return " | ".join(re.findall(r"'exc_type': '(\w+', 'exc_value': .{0,600}?), 'exc_notes'", log)) or log[-600:]

    def is_without_answer(self) -> bool:
        """Return whether Airflow's server does not answer."""
        try:
            self.api.runs(DAG, limit=1)
        except httpx.HTTPError:
            return True
        return False

    def is_at_rest(self) -> bool:
        """Return whether no payment waits and no report is pending."""
        committed, lows = self.group.committed_if_settled(), self.group.lows()
        if committed is None:
            return False
        waits = any(end > committed.get(number, lows[number]) for number, end in self.group.ends().items())
        return not waits and not self.stack.owed_reports()

    def process_backlog(self, runs: int = 4, state: str | None = "success") -> None:
        for _ in range(runs):
            if self.is_at_rest():
                return
            self.run(state)
        assert self.is_at_rest(), f"after {runs} runs: {self.group.committed()} of {self.group.ends()}"

    def _told(self, run_id: str) -> str:
        tasks = self.tasks(run_id)
        states = {name: f"{one['state']}, try {one['try_number']}" for name, one in tasks.items()}
        failed = [name for name, one in tasks.items() if one["state"] == "failed"]
        return f"{states} {[self.last_words(run_id, name) for name in failed]}"

    # What must hold.

    @property
    def window(self) -> Window:
        """Return the offsets that this case had to score."""
        return {number: (self.start.get(number, 0), end) for number, end in self.group.ends().items()}

    def check(self, window: Window | None = None, *, resent: bool = False) -> None:
        """Works off what waits; then each payment came out once and unchanged, and each fraud was mailed once.

        `resent`: a mail may have come again, with the Message-ID it had.
        """
        self.process_backlog()
        window = window or self.window
        self.check_topics(window)
        self.check_predictions()
        times = self.times()
        assert repeated_payments(times) == []
        strays = [place for place in times if not is_in(window, place)]
        assert strays == []
        frauds = self.frauds(window)
        assert frauds
        mailed = self.mailed()
        if resent:
            mailed = list({one.message_id: one for one in mailed}.values())
        check_mailed(frauds, mailed)

    def check_predictions(self) -> None:
        """Check each payment's prediction, which follows from its amount and the current model."""
        seen: Counter[str] = Counter()
        for one in self.scored():
            assert one.headers["model_run_id"] == self.pipeline.models.latest, one.place
            payment = payment_of(one)
            label = _LABELS.get(payment["amt"]) if isinstance(payment.get("amt"), float) else None
            assert label in (None, payment["is_fraud"]), one.place
            seen.update([label] if label else [])
        assert len(seen) == len(_LABELS), seen

    def check_topics(self, window: Window) -> None:
        verdict = self.verify(window)
        assert verdict.count("due") > 0
        assert verdict.is_whole, [str(one) for kind in TOPIC_KINDS for one in verdict.findings(kind)]

    def verify(self, window: Window) -> VerifyReport:
        bounds = [{number: pair[side] for number, pair in window.items()} for side in (0, 1)]
        # A partition that is not named has an empty window.
        lows = self.group.lows()
        start, end = Bounds(by_partition=lows | bounds[0]), Bounds(by_partition=lows | bounds[1])
        return verify(self.stack.cluster, Settings(), start=start, end=end)

    def frauds(self, window: Window) -> dict[Place, str]:
        """Return the batch of each fraud, by source and row."""
        found = [one for one in self._readers[0].each() if is_fraud(one)]
        return {place_of(one): one.headers["batch_id"] for one in found if is_in(window, one.place)}

    def scored(self) -> list[Arrived]:
        """Return the committed messages on the output topic since this case began."""
        return self._readers[0].arrived()

    def times(self) -> Counter[tuple[str, str]]:
        """Return how often each payment came out since this case began, dead letters included."""
        return Counter(one.place for reader in self._readers for one in reader.each())

    def arrived(self) -> int:
        return len(self.scored())

    def mailed(self) -> list[MailedReport]:
        return [mailed_reports(message) for message in reports(self.inbox)]


def repeated_payments(times: Mapping[tuple[str, str], int]) -> list[tuple[str, str]]:
    return [place for place, count in times.items() if count > 1]


def with_retries(ask: Callable[[], Any], seconds: float = 180) -> Any:
    """Repeat a request until Airflow answers: its servers may be away for a while."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return ask()
        except httpx.HTTPStatusError as error:
            if error.response.status_code < httpx.codes.INTERNAL_SERVER_ERROR or time.monotonic() > deadline:
                raise
        except httpx.TransportError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.3)
