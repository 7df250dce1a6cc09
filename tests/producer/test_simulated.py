"""The simulator as a source of messages."""

from __future__ import annotations

import datetime
import itertools
import json
import threading
import time
from typing import Any

from include.producer.message import PaymentMessage
from include.producer.simulated import SimulatedPayments


def messages(**options: Any) -> list[PaymentMessage]:
    source = SimulatedPayments(**{"rate": 0, "seed": 1, "fraud_share": 0.05, "cards": 50} | options)
    return list(itertools.chain.from_iterable(source.message_lists(threading.Event())))


def payment(message: PaymentMessage) -> dict[str, Any]:
    split = json.loads(message.value)
    assert list(split) == ["columns", "index", "data"]
    assert len(split["index"]) == len(split["data"]) == 1
    return dict(zip(split["columns"], split["data"][0], strict=True))


def test_key_is_the_card_number_as_text() -> None:
    sent = messages(count=500)
    assert len(sent) == 500
    assert all(message.key == str(payment(message)["cc_num"]).encode() for message in sent)
    assert [json.loads(message.value)["index"][0] for message in sent] == list(range(500))


def test_live_payments_have_the_time_at_which_they_are_sent() -> None:
    before = time.time()
    sent = [payment(message) for message in messages(count=50, rate=50)]
    after = time.time()
    times = [row["unix_time"] for row in sent]
    assert before * 1000 - 1 <= times[0]
    assert times[-1] <= after * 1000
    assert times == sorted(times)
    assert times[-1] - times[0] > 400
    for row in sent:
        written = datetime.datetime.fromtimestamp(row["unix_time"] // 1000, datetime.UTC)
        assert row["trans_date_trans_time"] == f"{written:%Y-%m-%d %H:%M:%S}"


def test_live_payments_of_one_seed_differ_in_time_only() -> None:
    def untimed() -> list[dict[str, Any]]:
        rows = [payment(message) for message in messages(count=200)]
        return [{**row, "unix_time": 0, "trans_date_trans_time": ""} for row in rows]

    assert untimed() == untimed()


def test_payments_with_start_keep_simulated_times() -> None:
    start = datetime.datetime(2024, 2, 29, 22, 0)  # noqa: DTZ001 (as the command line gives it)
    rows = [payment(message) for message in messages(count=1_000, start=start, per_day=48_000)]
    assert rows[0]["trans_date_trans_time"].startswith("2024-02-29 22:00:")
    assert rows[-1]["trans_date_trans_time"] > "2024-02-29 22:15:00"


def test_status_counts_frauds() -> None:
    source = SimulatedPayments(rate=0, seed=1, fraud_share=0.05, cards=50, count=2_000)
    frauds = sum(
        payment(message)["is_fraud"]
        for message in itertools.chain.from_iterable(source.message_lists(threading.Event()))
    )
    assert frauds > 20
    assert source.status() == f"{frauds} simulated as fraud"
