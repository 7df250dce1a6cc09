"""Describe a finished run for the demo, and compare it with the topics, the mailbox and the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.parser import BytesHeaderParser
from pathlib import Path
from typing import Any

from dev.airflow_api import AirflowApi
from dev.demo.demo_ledger import DemoLedger
from include.kafka.cluster import Cluster
from include.kafka.range_reader import read_ranges
from include.settings import Settings

DAG = "score_payments"


@dataclass(frozen=True)
class Batch:
    """Hold the counts of one finished run, from its tasks' XComs. `mails` counts the reports sent in this run."""

    run_id: str
    state: str
    seconds: float
    drained: dict[str, Any]
    predicted: dict[str, Any]
    published: dict[str, Any]
    mails: int
    model: str

    @property
    def had_payments(self) -> bool:
        """Return whether the run found payments or dead letters."""
        return bool(self.drained.get("payments") or self.drained.get("dead_letters"))

    @property
    def line(self) -> str:
        """Return one line for the console."""
        if self.state != "success":
            return f"{self.run_id}: {self.state}, see its tasks in Airflow"
        if not self.had_payments:
            return f"{self.run_id}: nothing waited, {self.seconds:.1f} s"
        drained, predicted = self.drained, self.predicted
        parts = (
            f"drained {drained['payments'] + drained['dead_letters']:,}",
            f"scored {predicted.get('scored', 0):,} with {self.model}",
            f"frauds {predicted.get('frauds', 0):,}",
            f"dead letters {predicted.get('dead_letters', 0):,}",
            f"published {self.published.get('published', 0):,}",
            f"lag {drained['lag'] + drained.get('left', 0):,}",
            f"{self.seconds:.1f} s",
            f"{self.mails or 'no'} mail{'s' if self.mails > 1 else ''}",
        )
        return f"{self.run_id}: {', '.join(parts)}"


def batch(api: AirflowApi, run: Mapping[str, Any]) -> Batch:
    """Return what a finished run did."""
    run_id = run["dag_run_id"]
    planned = api.xcom(DAG, run_id, "plan") or {}
    shards = range(planned.get("shards", 0))
    model = api.xcom(DAG, run_id, "resolve_model", "return_value") or {}
    mailed = api.xcom(DAG, run_id, "email", "return_value") or {}
    return Batch(
        run_id=run_id,
        state=run["state"],
        seconds=run["duration"] or 0.0,
        drained=planned | _counted(api, run_id, "drain", shards),
        predicted=_counted(api, run_id, "predict", shards),
        published=_counted(api, run_id, "publish", shards),
        mails=mailed.get("reports", 0),
        model=f"{model['name']} version {model['version']}" if model.get("name") else model.get("run_id", "-")[:8],
    )


def _counted(api: AirflowApi, run_id: str, task_id: str, shards: Iterable[int]) -> dict[str, int]:
    """Return the sums of the counts of a mapped task's instances."""
    total: Counter[str] = Counter()
    for shard in shards:
        counts = api.xcom(DAG, run_id, task_id, map_index=shard) or {}
        total.update({name: count for name, count in counts.items() if isinstance(count, int)})
    return dict(total)


def problems(batch: Batch, environment: Mapping[str, str]) -> list[str]:
    """Return what differs between a batch's tasks and the topics, the mailbox and the ledger, empty for none."""
    found: list[str] = []
    batch_id = batch.drained["batch"]
    settings = Settings.from_environment(environment)
    published = _messages(environment, settings.output_topic, batch_id)
    sources = [place for place, _ in published]
    refused = [place for place, _ in _messages(environment, settings.dead_letter_topic, batch_id)]
    seen = Counter(sources + refused)
    counts = {
        "drained": batch.drained["payments"] + batch.drained["dead_letters"],
        "scored and dead letters": batch.predicted["scored"] + batch.predicted["dead_letters"],
        f"on {settings.output_topic} and {settings.dead_letter_topic}": len(seen),
    }
    if len(set(counts.values())) > 1:
        found.append(f"counts differ: {counts}")
    if len(sources) != batch.predicted["scored"]:
        found.append(f"{len(sources)} predictions on {settings.output_topic}, {batch.predicted['scored']} were scored")
    doubled = [source for source, times in seen.items() if times > 1]
    if doubled:
        found.append(f"{len(doubled)} payments stand twice on the output, for instance {doubled[0]}")
    mails = sum(batch_id in subject for subject in subjects(Path(environment["MAILDIR"])))
    if mails != bool(batch.predicted["frauds"]):
        found.append(f"{mails} reports of this batch in the mailbox, with {batch.predicted['frauds']} frauds found")
    return found + _ledger_differences(published, DemoLedger.of(environment).batch(batch_id, len(published)))


def _ledger_differences(published: list[tuple[str, str]], recorded: list[tuple[str, str]]) -> list[str]:
    due, there = Counter(published), Counter((place, f"[{payment}]") for place, payment in recorded)
    if due == there:
        return []
    missing, more = due - there, there - due
    return [
        f"of {len(published):,} predictions {missing.total():,} are not in the ledger as they were published, and "
        f"{more.total():,} of its {len(recorded):,} rows were not published: `fraud reconcile` names them"
    ]


def subjects(maildir: Path) -> list[str]:
    """Return the subjects of all mails in a Maildir."""
    parser = BytesHeaderParser()
    headers = (parser.parsebytes(path.read_bytes()) for path in maildir.glob("new/*"))
    return [str(message["Subject"]) for message in headers]


def _messages(environment: Mapping[str, str], topic: str, batch_id: str) -> list[tuple[str, str]]:
    """Return source with row, and the value, of each committed message of a batch."""
    cluster, found = Cluster.from_environment(environment), []
    partitions = cluster.describe_topic(topic).partitions
    firsts = cluster.first_offsets(topic, partitions)
    lasts = cluster.last_stable_offsets(topic, partitions)
    ranges = {partition: (firsts[partition], lasts[partition]) for partition in partitions}
    with cluster.consumer("fraud_demo") as consumer:
        for _, messages in read_ranges(cluster, consumer, topic, ranges):
            for message in messages:
                headers = dict(message.headers() or [])
                if headers.get("batch_id") == batch_id.encode():
                    place = f"{_text(headers['source'])}/{_text(headers.get('row'))}"
                    found.append((place, _text(message.value())))
    return found


def _text(value: str | bytes | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
