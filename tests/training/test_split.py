"""Split reference data and confirmed payments at one cut-off in time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from include.training.confirmed_data import ConfirmedPayments, read_confirmed
from include.training.training_data import TIME, DataSource, DataSplit, parse_dates, split
from tests.support.payments import payment
from tests.training.test_confirmed_data import exported_payments

DAY = 24 * 60


def payments_at(minutes: Sequence[int], *, fraud_every: int = 10, name: str = "r") -> pd.DataFrame:
    """Return payments at these minutes of 2026."""
    times = pd.Timestamp("2026-01-01") + pd.to_timedelta(list(minutes), unit="min")
    return pd.DataFrame(
        {
            TIME: times.strftime("%Y-%m-%d %H:%M:%S"),
            "trans_num": [f"{name}{number}" for number in range(len(minutes))],
            "is_fraud": [int(number % fraud_every == 0) for number in range(len(minutes))],
        }
    )


def split_both(reference: pd.DataFrame, confirmed: pd.DataFrame) -> DataSplit:
    return split(pd.concat([reference, confirmed], ignore_index=True), second_source_rows=len(confirmed))


def trained_too_late(parts: DataSplit) -> int:
    """Return the number of training payments that are not earlier than all held-out ones."""
    return int((parse_dates(parts.train[TIME]) >= parse_dates(parts.held_out[TIME]).min()).sum())


@pytest.mark.parametrize(
    "confirmed",
    [
        range(0, 20 * DAY, 30),
        range(15 * DAY, 25 * DAY, 10),
        range(8 * DAY, 12 * DAY, 5),
        range(40 * DAY, 50 * DAY, 10),
        [19 * DAY] * 400,
        range(19 * DAY, 19 * DAY + 7),
    ],
    ids=["same days", "overlapping", "earlier", "later", "one moment", "a handful"],
)
def test_every_held_out_payment_is_later_than_every_training_payment(confirmed: Sequence[int]) -> None:
    reference = payments_at(range(0, 20 * DAY, 2))
    parts = split_both(reference, payments_at(confirmed, fraud_every=2, name="c"))
    assert trained_too_late(parts) == 0
    assert len(parts.train) + len(parts.held_out) == len(reference) + len(confirmed)


def test_training_part_has_confirmed_payments_later_than_all_others() -> None:
    parts = split_both(
        payments_at(range(0, 20 * DAY, 2)), payments_at(range(30 * DAY, 40 * DAY, 10), fraud_every=2, name="c")
    )
    assert parts.train["trans_num"].str.startswith("c").sum() == 1_152
    assert parts.held_out["trans_num"].str.startswith("c").sum() == len(parts.held_out) == 288


def test_too_few_confirmed_payments_are_held_out_with_others() -> None:
    """Otherwise the model would learn from two of the three frauds and be evaluated on one."""
    parts = split_both(
        payments_at(range(0, 20 * DAY, 2)), payments_at(range(30 * DAY, 30 * DAY + 3), fraud_every=1, name="c")
    )
    assert (parts.held_out["is_fraud"].sum(), len(parts.held_out)) == (291, 2_883)
    assert trained_too_late(parts) == 0


def test_latest_fifth_is_held_out_without_confirmed_payments() -> None:
    parts = split(payments_at(range(0, 20 * DAY, 2)))
    assert (len(parts.train), len(parts.held_out)) == (11_520, 2_880)
    few = split(payments_at(range(100)))
    assert (len(few.train), few.held_out["is_fraud"].sum()) == (80, 2)


def test_payments_of_the_same_time_are_in_the_same_part() -> None:
    minutes = sorted([*range(400), *[310] * 200])
    parts = split_both(payments_at(minutes), payments_at([310] * 50, fraud_every=2, name="c"))
    assert trained_too_late(parts) == 0
    assert (parts.train[TIME] < parts.held_out[TIME].min()).all()


def test_training_part_has_early_payment_with_late_verdict() -> None:
    """The payment's own time counts. Its row in the reference data, with the label genuine, is in neither part."""
    reference = payments_at(range(0, 20 * DAY, 2))
    chargebacks = reference.iloc[[1, 2_003, 8_001]].assign(is_fraud=1)
    parts = split(
        ConfirmedPayments(chargebacks, DataSource("x", "0")).append_to(reference), second_source_rows=len(chargebacks)
    )
    both = pd.concat([parts.train, parts.held_out])
    assert both["trans_num"].is_unique
    assert parts.train.set_index("trans_num").loc[chargebacks["trans_num"], "is_fraud"].tolist() == [1, 1, 1]
    assert trained_too_late(parts) == 0


def test_confirmed_payment_with_shared_trans_num_replaces_only_one() -> None:
    """Thousands of payments in the reference data have the same trans_num, and one of them is confirmed."""
    reference = payments_at(range(0, 20 * DAY, 2)).assign(trans_num="N/A")
    reference.loc[7, "trans_num"] = None
    confirmed = pd.concat(
        [reference.iloc[[100]].assign(is_fraud=1), payments_at([0], name="nan").assign(trans_num="nan")]
    )
    joined = ConfirmedPayments(confirmed, DataSource("x", "0")).append_to(reference)
    assert len(joined) == len(reference) + 1
    assert joined.loc[joined[TIME] == reference.loc[100, TIME], "is_fraud"].tolist() == [1]


def test_newest_file_with_a_trans_num_replaces_all_its_rows(tmp_path: Path) -> None:
    first, second = (payment(amount, trans_num="T").scored(1) for amount in (1.5, 2.5))
    other = payment(3.5, trans_num="other").scored(1)
    (tmp_path / "1.parquet").write_bytes(exported_payments([(second, True), (other, True)]))
    (tmp_path / "2.parquet").write_bytes(exported_payments([(first, True), (second, False)]))
    found = read_confirmed(str(tmp_path)).frame
    assert sorted(zip(found["trans_num"], found["amt"], found["is_fraud"], strict=True)) == [
        ("T", 1.5, 1), ("T", 2.5, 0), ("other", 3.5, 1),
    ]  # fmt: skip
