"""Score the payments that wait on the input topic, one batch for each run of the DAG `score_payments`.

The steps are modules of their own, and each is one task of the DAG:

- `planner` fixes the batch: the offsets `[start, end)` of each partition. It distributes the partitions over shards, so
  that several workers can share a batch: the other steps run once for each shard.
- `drain` reads the messages of these offsets, and stages them in chunks: Parquet files in the staging area, where
  tasks leave files for later tasks (`include/storage`).
- `predict` scores the staged payments, and stages the predictions.
- `publish` commits each partition in one kafka transaction: predictions to the output topic, dead letters (messages
  that cannot be scored) to the dead-letter topic, and the group's offset `end`. The metadata of the committed offset is
  the commit note, which names the batch.
- `outbox` finds pending reports: mails about frauds of committed partitions that no mail server has accepted yet.

All steps may be repeated, also by several workers at the same time. Only the group's committed offsets define what is
done. Until a batch is committed, each newer run takes over its payments, and ends its claim (`claims`).
"""
