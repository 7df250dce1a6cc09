"""Runs the DAG score_payments on a stack: sends payments, triggers runs and reads their output."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from include.models.hold_change import HOLD_CHANGE_VARIABLE
from tests.support.breakpoint import Breakpoint
from tests.support.live_stack import LiveStack
from tests.support.mail import Inbox
from tests.support.payments import Payment
from tests.support.topics import Arrived, Reader, send
from tests.support.two_models import TwoModels
from tests.support.waiting import wait_until

DAG = "score_payments"
HOLD = "fraud_model_hold"
ANALYSTS = "analysts@example.com"
OPERATORS = "operators@example.com"


@dataclass(frozen=True)
class Sent:
    payment: Payment
    source: str


class Pipeline:
    def __init__(self, stack: LiveStack, models: TwoModels) -> None:
        self.stack = stack
        self.models = models
        self.api = stack.airflow
        self.breakpoint = Breakpoint(stack.home / "airflow")
        self.secrets: set[str] = set()

    def send(self, payments: Iterable[Payment], topic: str = "topic_1", spread: int | None = None) -> list[Sent]:
        payments = list(payments)
        self.secrets.update(*(payment.secrets for payment in payments))
        messages = [(payment.key, payment.message) for payment in payments]
        sources = send(self.stack.kafka, topic, messages, spread)
        return [Sent(payment, source) for payment, source in zip(payments, sources, strict=True)]

    def schedule(self, every_minute: bool) -> None:
        """Switch the DAG's schedule on or off. Without it, only runs that a test triggers score its payments."""
        if every_minute:
            self._by_hand.unlink(missing_ok=True)
        else:
            self._by_hand.touch()
        self.read_again(scheduled=every_minute)

    @contextmanager
    def on_schedule(self, dag: str) -> Iterator[None]:
        """Run this DAG on its schedule; tests trigger all others."""
        self._by_hand.write_text(dag)
        self.read_again(dag, scheduled=True)
        yield
        self._by_hand.write_text("")
        self.read_again(dag, scheduled=False)

    def read_again(self, dag: str = DAG, *, scheduled: bool) -> None:
        """The DAG's file, until Airflow has the DAG on its schedule, or off it."""

        def parsed() -> bool:
            return bool(self.api.request("GET", f"dags/{dag}")["next_dagrun_run_after"]) == scheduled

        if parsed():
            return
        try:
            self.api.request("PUT", f"parseDagFile/{self.api.request('GET', f'dags/{dag}')['file_token']}")
        except httpx.HTTPStatusError as error:
            # It has been asked for already, and was not begun yet.
            if error.response.status_code != httpx.codes.CONFLICT:
                raise
        wait_until(parsed, f"the file of {dag} is not read again")

    @property
    def _by_hand(self) -> Path:
        return self.stack.home / "airflow" / "by-hand"

    def settle(self) -> None:
        """Wait until no run is active, because it would score a test's payments."""
        wait_until(lambda: not self.active(), "the DAG does not come to rest", 300)

    def rest(self, dag: str = DAG) -> None:
        """Pause the DAG while no run is active, because a paused DAG does not continue its runs."""
        wait_until(lambda: self._paused_between_runs(dag), "runs go on", 300)

    def _paused_between_runs(self, dag: str) -> bool:
        if self.active(dag):
            return False
        self.api.pause(dag, True)
        if self.active(dag):
            self.api.pause(dag, False)
            return False
        return True

    def active(self, dag: str = DAG) -> list[dict[str, Any]]:
        return [run for run in self.api.runs(dag, limit=50) if run["state"] in ("queued", "running")]

    def score(
        self, payments: Iterable[Payment], conf: Mapping[str, Any] | None = None, state: str = "success"
    ) -> tuple[str, list[Sent]]:
        """Send payments and trigger a run that scores only them. Return the finished run's id and the payments."""
        self.settle()
        sent = self.send(payments)
        run_id = self.finish(self.api.trigger(DAG, conf), state)
        # None where plan has failed.
        drained = self.counts(run_id, "drain")
        assert drained is None or drained["payments"] + drained["dead_letters"] == len(sent)
        return run_id, sent

    def finish(self, run_id: str, state: str = "success", dag: str = DAG) -> str:
        run = self.api.wait_for_run(dag, run_id)
        assert run["state"] == state, self.states(run_id, dag)
        return run_id

    def states(self, run_id: str, dag: str = DAG) -> dict[str, str]:
        return {name: task["state"] for name, task in self.api.tasks(dag, run_id).items()}

    def task(self, run_id: str, task_id: str, dag: str = DAG) -> dict[str, Any]:
        return self.api.tasks(dag, run_id)[task_id]

    def counts(self, run_id: str, task_id: str) -> Any:
        """Return the result of a task; of a mapped one, that of its first instance."""
        return self.api.xcom(DAG, run_id, task_id, map_index=self._index(run_id, task_id))

    def _index(self, run_id: str, task_id: str, dag: str = DAG) -> int:
        """0 where a batch of one shard is mapped over it, -1 where the task is not mapped, or has no shard."""
        return int(self.task(run_id, task_id, dag)["map_index"])

    def log(self, run_id: str, task_id: str, attempt: int = 1, dag: str = DAG) -> str:
        path = f"dags/{dag}/dagRuns/{quote(run_id, safe='')}/taskInstances/{task_id}/logs/{attempt}"
        params = {"full_content": True, "map_index": self._index(run_id, task_id, dag)}
        lines = self.api.request("GET", path, params=params)["content"]
        return "\n".join(str(line.get("event", "")) + str(line.get("error_detail", "")) for line in lines)

    def await_log(self, run_id: str, task_id: str, words: str, attempt: int = 1, dag: str = DAG) -> str:
        """Wait until a task's log has these words, and return the log."""
        wait_until(
            lambda: words in self.log(run_id, task_id, attempt, dag), f"the log of {task_id} does not say {words!r}", 30
        )
        return self.log(run_id, task_id, attempt, dag)

    def clear(self, run_id: str, *task_ids: str) -> None:
        """Clear a task as the UI does, or the whole run without a name, and wait for the end of the run."""
        before = {name: task["id"] for name, task in self.api.tasks(DAG, run_id).items()}
        body: dict[str, Any] = {"dry_run": False, "only_failed": False, "reset_dag_runs": True, "dag_run_id": run_id}
        if task_ids:
            body["task_ids"] = list(task_ids)
        cleared = self.api.request("POST", f"dags/{DAG}/clearTaskInstances", json=body)["task_instances"]
        assert {task["task_id"] for task in cleared} == set(task_ids or before)
        self.api.wait_for_run(DAG, run_id)

    def held(self) -> str | None:
        """Return the Airflow Variable of the held model, or None."""
        try:
            return str(self.api.request("GET", f"variables/{HOLD}")["value"])
        except httpx.HTTPStatusError as error:
            if error.response.status_code == httpx.codes.NOT_FOUND:
                return None
            raise

    def end_hold(self) -> None:
        if self.held() is not None:
            self.api.request("DELETE", f"variables/{HOLD}")

    def forget_hold_change(self) -> None:
        """Delete the note of the last hold change, as earlier versions wrote none."""
        self.api.request("DELETE", f"variables/{HOLD_CHANGE_VARIABLE}")


class Outputs:
    """Messages on both output topics since the object was created."""

    def __init__(self, servers: str, output: str = "topic_2", dead_letters: str = "topic_1_dead_letters") -> None:
        self._output = Reader(servers, output)
        self._dead_letters = Reader(servers, dead_letters)

    def scored(self, sent: Iterable[Sent]) -> list[Arrived]:
        """Return the scored messages of the payments, in order. Each is scored once and none is a dead letter."""
        sources = [one.source for one in sent]
        found = [arrived for arrived in self._output.arrived() if arrived.headers["source"] in sources]
        assert Counter(arrived.headers["source"] for arrived in found) == Counter(sources)
        assert not [arrived for arrived in self._dead_letters.arrived() if arrived.headers["source"] in sources]
        return sorted(found, key=lambda arrived: sources.index(arrived.headers["source"]))

    def dead_letters(self, sources: Iterable[str]) -> list[Arrived]:
        """Return the dead letters of the payments, in order."""
        sources = list(sources)
        found = [arrived for arrived in self._dead_letters.arrived() if arrived.headers["source"] in sources]
        assert Counter(arrived.headers["source"] for arrived in found) == Counter(sources)
        assert not [arrived for arrived in self._output.arrived() if arrived.headers["source"] in sources]
        return sorted(found, key=lambda arrived: sources.index(arrived.headers["source"]))

    def require_none(self, sent: Iterable[Sent]) -> None:
        """Check that none of these payments came out."""
        sources = {one.source for one in sent}
        everything = [*self._output.arrived(), *self._dead_letters.arrived()]
        assert not [arrived for arrived in everything if arrived.headers["source"] in sources]

    def all(self) -> list[Arrived]:
        """Return all scored messages."""
        return self._output.arrived()

    def sources(self) -> list[str]:
        """Of the same."""
        return sorted(arrived.headers["source"] for arrived in self.all())

    def count(self) -> int:
        """Return the number of all messages on both topics."""
        return len(self._output.arrived()) + len(self._dead_letters.arrived())


def reports(inbox: Inbox, recipient: str = ANALYSTS) -> list[EmailMessage]:
    found = [message for message in inbox.messages() if message["To"] == recipient]
    assert all(str(message["Subject"]).startswith("Security alert - Fraud detected") for message in found)
    return found


def reported(messages: Iterable[EmailMessage]) -> list[str]:
    """Return the `trans_num` of each payment in the reports' attachments."""
    numbers = []
    for message in messages:
        (attachment,) = message.iter_attachments()
        assert attachment.get_filename() == "fraud_detection_report.csv"
        content = attachment.get_content()
        text = content.decode() if isinstance(content, bytes) else content
        numbers += [row["trans_num"] for row in csv.DictReader(io.StringIO(text.lstrip("\ufeff")))]
    return numbers


def alarms(inbox: Inbox) -> list[str]:
    """Return the subjects of mails to operators."""
    return [str(message["Subject"]) for message in inbox.messages() if message["To"] == OPERATORS]


def trans_nums(sent: Iterable[Sent]) -> list[str]:
    return [one.payment.values["trans_num"] for one in sent]
