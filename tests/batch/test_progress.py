from __future__ import annotations

from include.batch.progress import Progress
from include.batch.storage import Storage
from include.kafka.offsets import Topic


def test_a_group_is_new_until_it_has_committed(storage: Storage):
    progress, topic = Progress(storage, "a/group"), Topic("topic", "id", (0, 1, 2))
    assert progress.reached(topic, 0) is None
    progress.note(topic, {0: 5, 1: 0})
    progress.note(topic, {0: 9})
    assert [progress.reached(topic, partition) for partition in topic.partitions] == [9, 0, None]


def test_groups_and_topics_are_kept_apart(folder: Storage):
    topic, other = Topic("topic", "id", (0,)), Topic("other", "id", (0,))
    Progress(folder, "a/b").note(topic, {0: 5})
    assert Progress(folder, "a").reached(topic, 0) is None
    assert Progress(folder, "a/b").reached(other, 0) is None
