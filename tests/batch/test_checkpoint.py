from __future__ import annotations

from include.batch.checkpoint import Checkpoint, PartitionCheckpoint
from include.kafka.cluster import Topic
from include.storage.staging import Storage


def test_partition_has_no_checkpoint_until_one_is_written(storage: Storage):
    checkpoint, topic = Checkpoint(storage, "a/group"), Topic("topic", "id", (0, 1, 2))
    assert checkpoint.read(topic, 0) is None
    checkpoint.write(topic, 0, 5)
    checkpoint.write(topic, 1, 0)
    checkpoint.write(topic, 0, 7)
    offsets = [checkpoint.read(topic, partition) for partition in topic.partitions]
    assert offsets == [PartitionCheckpoint("id", 7), PartitionCheckpoint("id", 0), None]
    assert checkpoint.read(Topic("topic", "another", (0,)), 0) == PartitionCheckpoint("id", 7)
    assert Checkpoint(storage, "a").read(topic, 0) is None
    assert checkpoint.read(Topic("other", "id", (0,)), 0) is None
