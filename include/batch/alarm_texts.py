"""The kinds of alarm, and what each means to the person who is mailed of it.

The DAG file reads them, so nothing slow is imported here.
"""

from __future__ import annotations

from dataclasses import dataclass

EXPIRED = "expired unread"
MOVED = "moved by another program"
HELD_UP = "held up by a kafka transaction"
CLOSE = "close to retention"
BEHIND_PAYMENTS = "behind: payments"
BEHIND_AGE = "behind: age"
TIMESTAMP = "timestamp implausible"
DEAD_LETTERS = "many dead letters"
OUTPUT_DEAD_LETTERS = "many dead letters of the output topic"


@dataclass(frozen=True)
class Advice:
    """A kind of alarm in the operators' words: its title, what it means, what to do next.

    `is_event`: it occurs in one batch only, so each occurrence is reported; other kinds are found in every batch while
    they last. `end`: the mail when the alarm ends; None if its end is not mailed.
    """

    title: str
    meaning: str
    next: str
    is_event: bool = False
    end: Advice | None = None


ADVICE = {
    # Alarms of the batch that `plan` fixes.
    EXPIRED: Advice(
        "Payments expired unread",
        "Kafka deleted these payments before a run read them. They were not scored and cannot be any more; the run "
        "went on with the first payment that is left.",
        "Find them at their source (the offsets are named above, all of them in plan's log) and produce them again. "
        "Then see in the DAG's earlier runs why they did not keep up, and raise the topic's retention.ms well above "
        "the longest outage to survive.",
        is_event=True,
    ),
    MOVED: Advice(
        "The group's offsets were moved",
        "Another program committed offsets of this DAG's consumer group: a consumer that uses the same group, or "
        "kafka-consumer-groups.sh. Runs go on from where it put them. Payments that were passed over are not scored; "
        "where it went back, payments are scored and published a second time.",
        "If nobody meant it, stop that program or give it a group of its own, and put the offset back with `fraud "
        "offsets set`: payments from there on are scored, those that were scored already once more.",
        is_event=True,
    ),
    HELD_UP: Advice(
        "Payments are held up by a producer",
        "A producer has opened a kafka transaction on the topic and neither committed nor aborted it. Whoever reads "
        "committed messages, as this DAG does, gets nothing of that partition before it ends, however much others "
        "produce behind it. Nothing is lost until the topic's retention deletes it.",
        "See what became of that producer. Kafka ends its transaction after the producer's own transaction.timeout.ms; "
        "one that stays is hanging: find it with `kafka-transactions.sh find-hanging` and end it with its command "
        "abort. Then see what brought it about: a single broker that was killed, or an old client.",
    ),
    CLOSE: Advice(
        "Payments are about to expire unread",
        "Kafka deletes payments at the topic's retention, whether they were read or not. These are still there.",
        "First gain time: raise retention.ms (and retention.bytes) of the topic now, it counts at once. Then see why "
        "runs do not keep up: failed runs, FRAUD_MAX_PAYMENTS, FRAUD_SHARDS.",
    ),
    BEHIND_AGE: Advice(
        "Payments waited too long",
        "The oldest payment that this run found had waited longer than FRAUD_ALARM_AGE_MINUTES: runs were missing, "
        "failing or slow. Nothing is lost.",
        "After an outage this ends by itself once the backlog is worked off. Otherwise look at the DAG's runs: is it "
        "paused, does one run hang, does each leave payments behind?",
    ),
    TIMESTAMP: Advice(
        "Timestamps are implausible",
        "The Kafka timestamps of these payments are before the year 2000 or in the future. The payments are scored as "
        "usual, but their age is unknown, so the alarms on age and on retention.ms ignore them. Kafka applies "
        "retention by the same timestamps: payments that look decades old can expire at once, unread.",
        "Kafka counts milliseconds: correct the producer (seconds become January 1970), or set the topic's "
        "message.timestamp.type to LogAppendTime.",
    ),
    # Alarms that `reports` raises of the batch as it came out.
    BEHIND_PAYMENTS: Advice(
        "More payments wait than runs take",
        "This run read all that its limits allow and left more behind than FRAUD_ALARM_LAG. Nothing is lost; the runs "
        "that follow go on with it, at once.",
        "If the number does not fall from run to run, more comes in than is scored: raise FRAUD_MAX_PAYMENTS or "
        "FRAUD_SHARDS, or give the workers more cores.",
    ),
    DEAD_LETTERS: Advice(
        "Many messages became dead letters",
        "They were not scored: each is on the dead-letter topic with its original bytes and the reason in its header. "
        "The other payments were scored as usual.",
        "Find what changed in the producer or the model; docs/messages.md explains the reasons. Then produce them "
        "again from the dead-letter topic.",
        end=Advice(
            "The share of dead letters is normal again",
            "The share of dead letters is below FRAUD_DEAD_LETTER_SHARE again.",
            "Correct the dead letters of this period and produce them again from the dead-letter topic.",
        ),
    ),
    # The alarm that `record_predictions` raises.
    OUTPUT_DEAD_LETTERS: Advice(
        "Many messages of the output topic became dead letters",
        "They are no predictions, so the ledger has no rows for them: each is on the output topic's dead-letter topic "
        "with its original bytes and the reason in its header. The predictions were recorded as usual.",
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
