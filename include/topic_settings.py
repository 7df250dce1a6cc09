"""Settings that name the product's topics and consumer groups, and those of topics that `fraud topics` creates."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Self

from include.environment_settings import EnvironmentSettings, Number, WholeNumber, setting
from include.errors import SettingError

_READS_ITS_OUTPUT = "the DAG would read its own output"
_MUST_DIFFER = (
    ("output_topic", "input_topic", _READS_ITS_OUTPUT),
    ("dead_letter_topic", "input_topic", _READS_ITS_OUTPUT),
    ("output_dead_letter_topic", "input_topic", _READS_ITS_OUTPUT),
    ("output_dead_letter_topic", "output_topic", _READS_ITS_OUTPUT),
    ("dead_letter_topic", "output_topic", "readers of scored payments would also receive dead letters"),
    ("ledger_group", "group", "moving or deleting the offsets of one would change the other"),
)


class TopicSettings(EnvironmentSettings):
    """The topics and consumer groups. Those that must differ are compared when the environment is read."""

    input_topic: str = setting("topic_1", "Topic that payments are read from. It must exist.")
    output_topic: str = setting(
        "topic_2", "Topic that scored payments are sent to. It must exist and must not be the input topic."
    )
    dead_letter_topic: str = setting(
        "topic_1_dead_letters",
        "Topic for messages that cannot be scored. It must exist and must be neither the input nor the output topic.",
    )
    output_dead_letter_topic: str = setting(
        lambda values: f"{values['output_topic']}_dead_letters",
        "Topic for messages of the output topic that are not predictions, so the ledger cannot record them. "
        "It must exist.",
        default_text="the output topic's name followed by `_dead_letters`",
        example="topic_2_dead_letters",
    )
    group: str = setting(
        "fraud_scoring",
        "Consumer group whose committed offsets say which payments are done. To continue where another consumer "
        "stopped, give its group. A new group starts at the earliest payment.",
    )
    ledger_group: str = setting(
        "fraud_ledger",
        "Consumer group of `record_predictions`; it must differ from `FRAUD_GROUP`. Its offsets say up to where dead "
        "letters of the output topic were sent, and show lag to monitoring tools. The ledger itself says what is "
        "recorded.",
    )
    topic_partitions: WholeNumber = setting(
        3,
        "Partitions of each topic that `fraud topics` creates.",
        bounds=(1, 10_000, "partitions"),
    )
    topic_replication: WholeNumber = setting(
        0,
        "Copies of each partition of a topic that `fraud topics` creates; 0 is the broker's default. Use 3 in "
        "production.",
        bounds=(0, 1_000, "copies"),
        example="3",
    )
    topic_retention_hours: Number = setting(
        168.0,
        "How long a topic that `fraud topics` creates keeps its messages. The records of batches wait at least as "
        "long for the ledger.",
        bounds=(1, 87_600, "hours"),
    )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Return the settings of an environment, as the base class does.

        Raise SettingError also if two variables name one topic or group that they must not share.
        """
        settings = super().from_environment(environment)
        for one, other, reason in _MUST_DIFFER:
            value = getattr(settings, one)
            if value == getattr(settings, other):
                names = " and ".join(map(cls.variable, (one, other)))
                raise SettingError(f"{names} are both {value}: {reason}; give another")
        return settings
