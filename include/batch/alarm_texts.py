"""Name the kinds of alarm, and say what each means to the operators who are mailed.

The DAG file imports this module, so it imports nothing slow.
"""

from __future__ import annotations

from dataclasses import dataclass

# Kinds are stored with incidents, and are in the subjects of mails.
EXPIRED = "expired unread"
OFFSETS_MOVED = "moved by another program"
BLOCKED = "held up by a kafka transaction"
CLOSE_TO_RETENTION = "close to retention"
BEHIND_PAYMENTS = "behind: payments"
BEHIND_AGE = "behind: age"
IMPLAUSIBLE_TIMESTAMP = "timestamp implausible"
DEAD_LETTERS = "many dead letters"
OUTPUT_DEAD_LETTERS = "many dead letters of the output topic"


@dataclass(frozen=True)
class Advice:
    """What a mail says about a kind of alarm: its title, what it means, and what to do next.

    `is_event` is true for what happens once, such as payments that expired. Each planned batch finds it until one
    commits the partition. Each event is named in a mail. If that mail must wait, because operators got others within
    the hour, it is sent at the latest when the alarm ends. The other kinds last: each batch finds them until their
    cause is gone. `end` is the text of the mail about the end itself, None if the end is not mailed.
    """

    title: str
    meaning: str
    next: str
    is_event: bool = False
    end: Advice | None = None


ADVICE = {
    # Found by `plan`.
    EXPIRED: Advice(
        "Payments expired unread",
        "Kafka deleted these payments before a run published them, so they are not scored. The run started at the "
        "first payment that was left.",
        "Find them in the system that sent them (offsets are named above, all of them in plan's log) and produce them "
        "again. Then look at the DAG's earlier runs for the cause, and raise the topic's retention.ms well above the "
        "longest outage to survive.",
        is_event=True,
    ),
    OFFSETS_MOVED: Advice(
        "The group's offsets were moved",
        "Another program committed offsets of this DAG's consumer group: a consumer that uses the same group, or "
        "kafka-consumer-groups.sh. Runs continue at these offsets. Payments that were skipped are not scored; after a "
        "move back, payments are scored and published a second time.",
        "If this was a mistake, stop that program or give it a group of its own, and set the offset back with `fraud "
        "offsets set`: all payments from that offset on are scored, some of them for the second time.",
        is_event=True,
    ),
    BLOCKED: Advice(
        "Payments are held up by a producer",
        "A producer has opened a kafka transaction on the topic and neither committed nor aborted it. This DAG reads "
        "committed messages only: until the transaction ends, it gets no later message of that partition, not even "
        "from other producers. Nothing is lost until the topic's retention deletes it.",
        "Find out what happened to that producer. Kafka ends its transaction after the producer's own "
        "transaction.timeout.ms. A transaction that stays open longer is hanging: find it with `kafka-transactions.sh "
        "find-hanging` and end it with `kafka-transactions.sh abort`. Usual causes are a broker that was killed and an "
        "old client.",
    ),
    CLOSE_TO_RETENTION: Advice(
        "Payments are about to expire unread",
        "Kafka deletes payments after the topic's retention, read or not. These payments are still there.",
        "First gain time: raise retention.ms (and retention.bytes) of the topic now, it takes effect at once. Then "
        "find out why runs do not keep up: failed runs, FRAUD_MAX_PAYMENTS, FRAUD_SHARDS.",
    ),
    BEHIND_AGE: Advice(
        "Payments waited too long",
        "The oldest payment that this run found had waited longer than FRAUD_ALARM_AGE_MINUTES: runs were missing, "
        "failing or slow. Nothing is lost.",
        "After an outage this ends when the backlog is scored. Otherwise look at the DAG: is it paused, does a run "
        "hang, does each run leave payments behind?",
    ),
    IMPLAUSIBLE_TIMESTAMP: Advice(
        "Timestamps are implausible",
        "The Kafka timestamps of these payments are before the year 2000 or in the future. The payments are scored as "
        "usual, but their age is unknown, so the alarms on age and on retention.ms ignore them. Kafka applies "
        "retention by the same timestamps: payments that look decades old can expire at once, unread.",
        "Kafka counts milliseconds: correct the producer (seconds become January 1970), or set the topic's "
        "message.timestamp.type to LogAppendTime.",
    ),
    # Found by `reports`, when the batch is published.
    BEHIND_PAYMENTS: Advice(
        "More payments wait than a run reads",
        "This run read all that its limits allow, and left more than FRAUD_ALARM_LAG offsets. Nothing is lost: the "
        "next runs start at once and read them.",
        "If the number does not fall from run to run, more comes in than is scored: raise FRAUD_MAX_PAYMENTS or "
        "FRAUD_SHARDS, or give the workers more cores.",
    ),
    DEAD_LETTERS: Advice(
        "Many messages became dead letters",
        "They were not scored. Each is on the dead-letter topic, with its original bytes and the reason in a header. "
        "Of a large message with several refused payments, only the first dead letter has these bytes; the others name "
        "its row in the header original_row. All other payments were scored as usual.",
        "Find out what changed in the producer or the model: docs/messages.md explains the reasons. Then produce them "
        "again from the dead-letter topic.",
        end=Advice(
            "The share of dead letters is normal again",
            "The share of dead letters is below FRAUD_DEAD_LETTER_SHARE again.",
            "Correct the dead letters of this period and produce them again from the dead-letter topic.",
        ),
    ),
    # Found by `record_predictions`.
    OUTPUT_DEAD_LETTERS: Advice(
        "Many messages of the output topic became dead letters",
        "They are not predictions, so the ledger has no rows for them. Each is on the output topic's dead-letter "
        "topic, with its original bytes and the reason in a header. The predictions were recorded as usual.",
        "Find the program that writes them to the output topic: only this product should have that right. "
        "docs/messages.md explains the reasons.",
        end=Advice(
            "The share of dead letters of the output topic is normal again",
            "The share of dead letters is below FRAUD_DEAD_LETTER_SHARE again.",
            "The dead letters of this period stay on the output topic's dead-letter topic until its retention deletes "
            "them.",
        ),
    ),
}
