"""Score the payments that wait on the input topic, one batch for each run of the DAG `score_payments`.

These modules do the work of tasks of the DAG:

- `planner` (task `plan`) fixes the batch: the offsets `[start, end)` of each partition. It distributes the partitions
  over shards, so that several workers can share a batch: `drain`, `predict` and `publish` run once for each shard.
- `drain` reads the messages of these offsets, and stages them in chunks: Parquet files in the staging area, where
  tasks leave files for later tasks (`include/storage`).
- `predict` scores the staged payments, and stages the predictions. The task `resolve_model`, which chooses the model,
  is in `include/models`.
- `publish` commits each partition in one kafka transaction: predictions to the output topic, dead letters (payments
  that cannot be scored) to the dead-letter topic, and the group's offset `end`. The metadata of the committed offset is
  the commit note, which names the batch.
- `outbox` keeps track of pending reports: mails about frauds of committed partitions that no mail server has accepted
  yet. The task `reports` finds them, and the task `email` mails them (`include/report`).

All tasks may be repeated, also by several workers at the same time. The group's committed offsets alone define what is
left to score. After its commit, `publish` writes a commit mark in the batch's folder: a repeated task then knows of the
commit even if later batches have replaced the note. Until a batch is committed, newer batches include its payments. Its
claim, which allows it to be published, lasts until a newer batch is saved and `plan` runs once more (`claims`).
"""
