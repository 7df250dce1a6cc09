"""`fraud offsets` on real topics, and what the next run then does."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from typer.testing import CliRunner, Result

from include.batch.group_offsets import GroupOffsets
from include.cli.console import TextOutput
from include.cli.main import app
from include.cli.offsets_commands import _report_moves
from include.errors import (
    ClusterError,
    OffsetsChangedError,
    StagingError,
    TopicChangedError,
)
from include.kafka.admin import Admin
from include.kafka.group_admin import OffsetChange, set_offsets
from tests.support import kafka_log
from tests.support.scoring import Scoring

Make = Callable[..., Scoring]
ROOT = Path(__file__).parents[2]


def send(here: Scoring, count: int, partition: int = 0) -> None:
    payment = b'{"columns":["n"],"index":[0],"data":[[1]]}'
    kafka_log.send(str(here.kafka["bootstrap.servers"]), here.settings.input_topic, [payment] * count, partition)


def scored(here: Scoring) -> list[str]:
    messages = kafka_log.read_all(str(here.kafka["bootstrap.servers"]), here.settings.output_topic)
    sources = [(dict(message.headers() or [])["source"] or b"").decode() for message in messages]
    return sorted(source.partition("/")[2] for source in sources)


def environment(here: Scoring) -> dict[str, str]:
    return {
        "KAFKA_BOOTSTRAP_SERVERS": str(here.kafka["bootstrap.servers"]),
        "FRAUD_INPUT_TOPIC": here.settings.input_topic,
        "FRAUD_GROUP": here.settings.group,
        "FRAUD_STAGING_URL": here.settings.staging_url,
    }


def fraud(here: Scoring, *words: str) -> Result:
    return CliRunner().invoke(app, ["offsets", *words], env=environment(here))


def offsets_shown(here: Scoring) -> list[tuple[int, int, int | None, int, int]]:
    rows = json.loads(fraud(here, "show", "--json").stdout)
    return [tuple(row[name] for name in ("partition", "first", "committed", "end", "waiting")) for row in rows]


def test_show_lists_the_offsets_of_each_partition(scoring: Make):
    here = scoring(2)
    send(here, 3)
    batch = here.drain_and_predict()
    here.publish(batch)
    send(here, 2)
    send(here, 4, partition=1)
    assert offsets_shown(here) == [(0, 0, 3, 5, 2), (1, 0, None, 4, 4)]
    heading, *lines = fraud(here, "show").stdout.splitlines()
    assert heading == f"group {here.settings.group} on the input topic {here.settings.input_topic}"
    assert lines[0].split() == ["partition", "first", "committed", "end", "waiting", "batch", "committed", "at"]
    assert lines[1].split()[:6] == ["0", "0", "3", "5", "2", batch.batch_id]
    assert lines[2].split() == ["1", "0", "none", "4", "4"]


def test_batch_that_commits_before_the_fencing_keeps_its_report(scoring: Make, monkeypatch: pytest.MonkeyPatch):
    here = scoring()
    send(here, 3)
    batch = here.drain_and_predict()

    def late(*words: Any) -> list[OffsetChange]:
        here.publish(batch)
        here.storage.delete(f"{batch.folder}/committed-0")
        return set_offsets(*words)

    monkeypatch.setattr("include.batch.group_offsets.set_offsets", late)
    fraud(here, "set", "--to", "earliest", "--yes")
    (report,) = here.outbox.pending_reports()
    assert report.key == batch.batch_id


def test_partition_that_changed_since_the_confirmation_is_left_alone(scoring: Make):
    here = scoring(2)
    send(here, 3)
    send(here, 3, partition=1)
    with GroupOffsets.open(here.cluster, here.settings) as group:
        shown = {row.partition: row for row in group.read()}
        manifest = here.drain_and_predict()
        here.storage.delete(f"{manifest.partitions[1].staged}/payments-1-0.parquet")
        with pytest.raises(StagingError):
            here.publish(manifest)
        moved, untouched = group.commit({0: 1, 1: 1}, shown)
    assert str(moved.error).startswith("the committed offset was None when you confirmed, and is 3 now")
    assert untouched.error is None
    assert [row[2] for row in offsets_shown(here)] == [3, 1]


def test_set_writes_the_checkpoint(scoring: Make):
    here = scoring()
    send(here, 3)
    here.run()
    fraud(here, "set", "--to", "1", "--yes")
    here.forget_group()
    with pytest.raises(TopicChangedError, match="it had reached 1"):
        here.drain()


def test_set_replaces_a_damaged_checkpoint(scoring: Make):
    here = scoring()
    send(here, 3)
    here.run()
    (path,) = Path(here.settings.staging_url, "progress").rglob("0.json")
    path.write_bytes(b"damaged")
    here.forget_group()
    with pytest.raises(StagingError, match=r"0\.json is damaged. Choose the offset .* with `fraud offsets set"):
        here.drain()
    fraud(here, "set", "--to", "3", "--yes")
    assert here.drain().partitions == ()


def test_operator_without_a_name_is_shown_by_uid(scoring: Make, monkeypatch: pytest.MonkeyPatch):
    here = scoring()
    send(here, 1)

    def unnamed() -> str:
        raise KeyError("getpwuid(): uid not found: 50000")

    monkeypatch.setattr("getpass.getuser", unnamed)
    assert fraud(here, "set", "--to", "latest", "--yes").exit_code == 0
    assert f"set by operator uid {os.getuid()}" in fraud(here, "show").stdout


def test_set_to_an_earlier_offset_scores_again_and_warns(scoring: Make):
    here = scoring()
    send(here, 3)
    here.run()
    done = fraud(here, "set", "--to", "1", "--yes")
    assert done.exit_code == 0
    assert "2 back: scored again" in done.stdout
    assert "partition 0: set from 3 to 1" in done.stdout
    assert "on the output topic twice" in done.stdout
    assert offsets_shown(here) == [(0, 0, 1, 3, 2)]
    (row,) = json.loads(fraud(here, "show", "--json").stdout)
    assert row["batch"].startswith("set by operator ")
    here.run()
    assert scored(here) == ["0/0", "0/1", "0/1", "0/2", "0/2"]
    assert "Nothing to change." in fraud(here, "set", "--to", "latest").stdout


def test_only_the_named_partitions_are_set(scoring: Make):
    here = scoring(3)
    for partition in range(3):
        send(here, 2, partition)
    here.run()
    done = fraud(here, "set", "--to", "earliest", "--partition", "0", "--partition", "2", "--yes")
    assert done.exit_code == 0
    assert [row[2] for row in offsets_shown(here)] == [0, 2, 0]
    assert "partition 1" not in done.stdout


def test_set_to_a_later_offset_skips_payments_and_warns(scoring: Make):
    here = scoring()
    send(here, 1)
    here.run()
    send(here, 3)
    assert "3 skipped" in fraud(here, "set", "--to", "latest", "--yes").stdout
    send(here, 1)
    here.run()
    assert scored(here) == ["0/0", "0/4"]


def test_time_is_resolved_to_the_first_payment_since(scoring: Make):
    here = scoring()
    client = kafka_log.producer(str(here.kafka["bootstrap.servers"]))
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp()
    for minute in range(4):
        client.produce(here.settings.input_topic, b"{}", None, 0, timestamp=int((noon + 60 * minute) * 1000))
    assert client.flush(30) == 0
    for text, offset in (
        ("2026-01-31T12:01", 1),
        ("2026-01-31T13:01:30+01:00", 2),
        ("2020-01-01", 0),
        ("2026-01-31T12:03:00.001", 4),
    ):
        fraud(here, "set", "--to", text, "--yes")
        assert offsets_shown(here)[0][2] == offset, text


def test_batch_in_flight_publishes_nothing_and_the_next_starts_at_the_new_offset(scoring: Make):
    here = scoring()
    send(here, 2)
    here.run()
    send(here, 2)
    batch = here.drain_and_predict()
    fraud(here, "set", "--to", "earliest", "--yes")
    with pytest.raises(OffsetsChangedError, match=r"and operator '.*' committed the offset"):
        here.publish(batch)
    assert scored(here) == ["0/0", "0/1"]
    (part,) = here.drain().partitions
    assert (part.start, part.end, part.committed_before) == (0, 4, 0)


def test_set_records_the_commit_of_a_dead_publisher(scoring: Make):
    here = scoring()
    send(here, 2)
    batch = here.drain_and_predict()
    here.publish(batch)
    # As if the publisher had died before it recorded the commit.
    here.storage.delete(f"{batch.folder}/committed-0")
    fraud(here, "set", "--to", "earliest", "--yes")
    here.drain()
    assert [report.key for report in here.outbox.pending_reports()] == [batch.batch_id]


def test_set_resolves_a_recreated_topic(scoring: Make):
    here = scoring()
    send(here, 2)
    here.run()
    client, topic = Admin(here.kafka), here.settings.input_topic
    client.delete_topics([topic])[topic].result(30)
    while topic in client.list_topics(timeout=10).topics:
        pass
    kafka_log.make_topic(str(here.kafka["bootstrap.servers"]), name=topic)
    send(here, 1)
    with pytest.raises(TopicChangedError):
        here.drain()
    assert fraud(here, "set", "--to", "earliest", "--yes").exit_code == 0
    here.run()
    assert scored(here) == ["0/0", "0/0", "0/1"]


def test_set_resolves_missing_offsets(scoring: Make):
    here = scoring()
    send(here, 2)
    here.run()
    here.forget_group()
    with pytest.raises(TopicChangedError):
        here.drain()
    assert "partition 0: set from nothing to 2" in fraud(here, "set", "--to", "2", "--yes").stdout
    send(here, 1)
    here.run()
    assert scored(here) == ["0/0", "0/1", "0/2"]


def test_set_resolves_an_offset_past_the_end(scoring: Make):
    here = scoring()
    send(here, 3)
    here.run()
    client = Admin(here.kafka)
    topic = here.settings.input_topic
    wanted = ConsumerGroupTopicPartitions(here.settings.group, [TopicPartition(topic, 0, 9)])
    (answer,) = client.alter_consumer_group_offsets([wanted]).values()
    assert answer.result(30).topic_partitions[0].error is None
    with pytest.raises(TopicChangedError, match="past the last stable offset 3:"):
        here.drain()
    assert "past the end now" in fraud(here, "set", "--to", "latest", "--yes").stdout
    assert here.drain().partitions == ()


@pytest.mark.parametrize(
    ("words", "output"),
    [
        (("--to", "9"), "holds offsets from 0 to 2"),
        (("--to", "soon"), "give earliest, latest, an offset, or a time"),
        (("--to", "earliest", "--partition", "4"), "has no partition 4"),
    ],
)
def test_invalid_target_is_refused(scoring: Make, words: tuple[str, ...], output: str):
    here = scoring()
    send(here, 2)
    done = fraud(here, "set", *words, "--yes")
    assert (done.exit_code, done.stdout) == (1, "")
    assert output in done.stderr
    assert offsets_shown(here)[0][2] is None


def test_set_without_a_terminal_needs_yes(scoring: Make):
    here = scoring()
    send(here, 2)
    done = fraud(here, "set", "--to", "latest")
    assert done.exit_code == 2
    assert "2 to be scored" not in done.stdout
    assert "add --yes" in done.stderr
    assert offsets_shown(here)[0][2] is None


@pytest.mark.parametrize(("answer", "code", "offset"), [(b"y\n", 0, 2), (b"n\n", 1, None)])
def test_set_asks_for_confirmation(scoring: Make, answer: bytes, code: int, offset: int | None):
    here = scoring()
    send(here, 2)
    ours, theirs = pty.openpty()
    try:
        os.write(ours, answer)
        done = subprocess.run(
            [sys.executable, "-c", "from include.cli.main import main; main()", "offsets", "set", "--to", "latest"],
            cwd=ROOT, env=os.environ | environment(here), stdin=theirs, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
    finally:
        os.close(ours)
        os.close(theirs)
    assert "Set these offsets?" in done.stdout
    assert done.returncode == code, done.stderr
    assert offsets_shown(here)[0][2] == offset


def test_failed_partition_is_shown_with_its_error(capsys: pytest.CaptureFixture[str]):
    _report_moves(TextOutput(), [OffsetChange(0, 5, 2), OffsetChange(1, 5, 2, ClusterError("it is fenced"))])
    output = capsys.readouterr()
    assert "partition 0: set from 5 to 2\npartition 1: NOT set to 2: it is fenced\n" in output.out
    assert "1 of 2 partitions could not be set" in output.err
