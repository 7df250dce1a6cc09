"""Step 4: one kafka transaction per partition: predictions and dead letters out and the offset on, or nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from include.batch import chunks
from include.batch.manifest import Manifest, PartitionBatch
from include.batch.outbox import Outbox
from include.batch.progress import Progress
from include.batch.scored import ScoredBatch
from include.batch.storage import Storage
from include.errors import (
    FraudError,
    OffsetsChangedError,
    StagingError,
    TopicChangedError,
)
from include.kafka import offsets
from include.kafka.config import Settings as KafkaSettings
from include.kafka.config import consumer_settings
from include.kafka.offsets import CommitNote, Committed
from include.kafka.transaction import Headers, Outgoing, Transaction, fence
from include.payments.encode import scored_value
from include.settings import Settings

log = logging.getLogger(__name__)


class Outcome(Enum):
    PUBLISHED = "published"
    ALREADY_PUBLISHED = "already published"
    PUBLISHED_BY_ANOTHER = "published by another batch"


@dataclass(frozen=True)
class Published:
    """Outcome by partition, how many messages this attempt sent, and the newest payment's Kafka timestamp."""

    outcomes: dict[int, Outcome]
    predictions: int
    dead_letters: int
    newest: int | None = None


def publish(
    kafka: KafkaSettings,
    settings: Settings,
    storage: Storage,
    manifest: Manifest,
    reached: Callable[[str], None] = lambda point: None,
    shard: int = 0,
) -> Published:
    """Safe to repeat at any time. `reached` hears each point of the protocol as it is passed."""
    manifest = Manifest.load(storage, manifest.batch_id)
    scored = ScoredBatch.load_shard(storage, manifest.folder, shard)
    parts = scored.parts_of(manifest)
    outbox = Outbox(storage, manifest.group, manifest.topic)
    topic = offsets.describe_topic(offsets.admin_client(kafka), kafka, manifest.topic)
    if topic.topic_id != manifest.topic_id:
        raise TopicChangedError(
            f"{manifest.topic} was deleted and made again (id {manifest.topic_id}, now {topic.topic_id}) after this "
            "batch was drained; clear the run's drain task to begin anew"
        )
    outbox.open_entry(manifest)
    reached("before fence")
    producers = fence(kafka, manifest.group, manifest.topic, [part.partition for part in parts])
    consumer = Consumer(consumer_settings(kafka, manifest.group))
    progress = Progress(storage, manifest.group)
    outcomes: dict[int, Outcome] = {}
    errors: list[FraudError] = []
    try:
        for part in parts:
            try:
                producer = producers[part.partition]
                # Read after the fence: no older attempt can move it any more.
                committed = offsets.committed_offsets(consumer, kafka, manifest.topic, [part.partition])[part.partition]
                outcome = _outcome_so_far(manifest, part, committed, outbox)
                if outcome is None:
                    step = _PartitionStep(kafka, settings, storage, manifest, scored, part, consumer)
                    step.run(producer, reached)
                    outcome = Outcome.PUBLISHED
                if outcome is not Outcome.PUBLISHED_BY_ANOTHER:
                    outbox.note_commit(manifest, part.partition)
            except FraudError as error:
                # The others go on: what is wrong with one partition must not hold them up, now or in any later run.
                log.error("%s/%s [%s, %s): %s", manifest.topic, part.partition, part.start, part.end, error)
                errors.append(error)
                continue
            outcomes[part.partition] = outcome
            progress.note(topic, part.partition, part.end)
            log.info("%s/%s [%s, %s): %s", manifest.topic, part.partition, part.start, part.end, outcome.value)
    finally:
        consumer.close()
    _raise_together(errors)
    sent = [part for part in scored.partitions if outcomes.get(part.partition) is Outcome.PUBLISHED]
    return Published(
        outcomes,
        sum(part.scored for part in sent),
        sum(part.dead_letters for part in sent),
        max((part.newest for part in parts if part.newest is not None), default=None),
    )


def _raise_together(errors: list[FraudError]) -> None:
    """As one error that says all; permanent only if each is, for a retry may mend the others."""
    if not errors:
        return
    leading = next((error for error in errors if not error.permanent), errors[0])
    if len(errors) == 1:
        raise leading
    raise type(leading)("; ".join(str(error) for error in errors)) from leading


def _outcome_so_far(manifest: Manifest, part: PartitionBatch, now: Committed, outbox: Outbox) -> Outcome | None:
    """None where this batch is to be published now."""
    if now.offset == part.end and now.offset != part.committed_before:
        ours = now.note is not None and now.note.batch == manifest.batch_id
        return Outcome.ALREADY_PUBLISHED if ours else Outcome.PUBLISHED_BY_ANOTHER
    if now.offset == part.committed_before:
        return None
    if outbox.is_committed(manifest, part.partition):
        return Outcome.ALREADY_PUBLISHED
    raise OffsetsChangedError(
        f"group {manifest.group} stands at {now.offset} on {manifest.topic}/{part.partition}, but batch "
        f"{manifest.batch_id} of offsets [{part.start}, {part.end}) was drained from {part.committed_before}"
        f"{f' and the offset was committed by batch {now.note.batch}' if now.note else ''}: nothing of it was "
        "published here. The next run drains from where the group stands"
    )


@dataclass(frozen=True)
class _PartitionStep:
    kafka: KafkaSettings
    settings: Settings
    storage: Storage
    manifest: Manifest
    scored: ScoredBatch
    part: PartitionBatch
    consumer: Consumer

    def run(self, producer: Producer, reached: Callable[[str], None]) -> None:
        place = TopicPartition(self.manifest.topic, self.part.partition)
        transaction = Transaction(producer, self.kafka, self.consumer, place)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        note = CommitNote(batch=self.manifest.batch_id, topic_id=self.manifest.topic_id, at=now)
        reached("before transaction")
        with chunks.paused_collector():
            transaction.run(self._messages(), self.part.end, note, reached)
        end = TopicPartition(place.topic, place.partition, self.part.end)
        offsets.await_committed(self.consumer, self.kafka, end, note)

    def _messages(self) -> Iterator[Outgoing]:
        model = self.scored.model
        common: Headers = [("model_run_id", model["run_id"].encode())]
        if model.get("name"):
            common += [("model_name", model["name"].encode()), ("model_version", str(model["version"]).encode())]
        batch: Headers = [("batch_id", self.manifest.batch_id.encode())]
        common += [*batch, ("scored_at", self.scored.scored_at.encode())]
        place = f"{self.manifest.topic}/{self.part.partition}/"
        out, dead = self.settings.output_topic, self.settings.dead_letter_topic
        first_row = ("row", b"0")
        for number in range(self.part.chunks):
            staged, scores = self._chunk(number)
            # A model knows few probabilities, many payments have the same one.
            chances = {chance: repr(chance).encode() for chance in set(scores["probability"])}
            originals, first = None, 0
            rows = zip(*staged.values(), *scores.values(), strict=False)
            for index, (offset, row, key, head, tail, prediction, probability, reason) in enumerate(rows):
                source = ("source", f"{place}{offset}".encode())
                if reason is None:
                    if row:
                        headers = [*common, source, ("row", b"%d" % row)]
                    else:
                        first = index
                        headers = [*common, source, first_row]
                    if probability is not None:
                        headers.append(("fraud_probability", chances[probability]))
                    yield out, key, scored_value(head, tail, prediction), headers
                    continue
                if not row:
                    first = index
                if originals is None:
                    originals = self._read(number, ("value", "headers"))
                headers = [*chunks.unpack_headers(originals["headers"][first]), ("reason", reason.encode()), source]
                if row is not None:
                    headers.append(("row", b"%d" % row))
                yield dead, key, originals["value"][first], headers + batch

    def _chunk(self, number: int) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
        """What was staged, and the predictions of its first rows: of all, unless the batch was cut off here."""
        folder, part = self.manifest.folder, self.part
        staged = self._read(number, ("offset", "row", "key", "head", "tail"))
        scores = chunks.read_predictions(self.storage, folder, part.partition, number)
        rows = len(scores["reason"])
        whole = len(staged["offset"])
        if rows != whole and not (number == part.chunks - 1 and rows < whole and staged["offset"][rows] == part.end):
            raise StagingError(
                f"{folder}: chunk {number} of partition {part.partition} has {rows} predictions for {whole} rows; "
                "clear the run's drain task: it drains these payments again"
            )
        return staged, scores

    def _read(self, number: int, names: Sequence[str]) -> dict[str, list[Any]]:
        return chunks.read_payments(self.storage, self.manifest.folder, self.part.partition, number, names)
