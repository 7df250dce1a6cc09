from __future__ import annotations

from include.batch.checkpoint import Checkpoint, PartitionCheckpoint
from include.kafka.cluster import Topic
from include.storage.staging import Storage


def test_a_group_is_new_until_it_has_committed(storage: Storage):
    checkpoint, topic = Checkpoint(storage, "a/group"), Topic("topic", "id", (0, 1, 2))
    assert checkpoint.read(topic, 0) is None
    checkpoint.write(topic, 0, 5)
    checkpoint.write(topic, 1, 0)
    checkpoint.write(topic, 0, 7)
    reached = [checkpoint.read(topic, partition) for partition in topic.partitions]
    assert reached == [PartitionCheckpoint("id", 7), PartitionCheckpoint("id", 0), None]
    assert checkpoint.read(Topic("topic", "another", (0,)), 0) == PartitionCheckpoint("id", 7)
    assert Checkpoint(storage, "a").read(topic, 0) is None
    assert checkpoint.read(Topic("other", "id", (0,)), 0) is None
