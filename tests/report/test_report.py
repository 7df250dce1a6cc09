"""The mail of a fraud report."""

from __future__ import annotations

import csv
import io
import json
import re
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest

from include.errors import ReportError
from include.report.fraud import Fraud
from include.report.report import ReportFacts, build_mail

PAYMENT = {
    "trans_date_trans_time": "2024-10-31 15:56:25",
    "cc_num": 4556123412349012345,
    "merchant": "Osinski and Morar",
    "category": "home",
    "amt": 16.18,
    "last": "Myers",
    "long": -72.5751,
    "trans_num": "64b632ebfbc52a1075747f9301db22b8",
    "is_fraud": 1,
    "fraud_confirmed": None,
}


def facts(frauds: int = 1, **changes: Any) -> ReportFacts:
    known = ReportFacts(
        batch_id="20261124T080501Z-5f3a9c",
        run_id="scheduled__2026-11-24T08:05:00+00:00",
        run_url="https://airflow.test/dags/score_payments/runs/1",
        model_label="fraud_scoring version 3",
        model_run_id="7c9e6679f2a04b0f8d1c5e3b2a190477",
        model_url="https://mlflow.test/#/experiments/1/runs/7c9e",
        ranges=(("topic_1", 0, 0, 100), ("topic_1", 1, 5, 90)),
        scored=1873,
        frauds=frauds,
        dead_letters=0,
        scored_at=datetime(2026, 11, 24, 8, 5, 4, tzinfo=UTC),
        output_topic="topic_2",
    )
    return replace(known, **changes)


def fraud(number: int = 0, probability: float | None = 0.9, **columns: Any) -> Fraud:
    return Fraud(f"topic_1/0/{number}", 0, probability, json.dumps(PAYMENT | columns).encode())


def text(html: str) -> str:
    """Return the text that a mail program shows."""
    found: list[str] = []
    parser = HTMLParser()
    parser.handle_data = found.append  # type: ignore[method-assign]
    parser.feed(html)
    return " ".join(" ".join(found).split())


def rows(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline="")))


def test_subject_has_count_and_batch() -> None:
    assert build_mail(facts(), [fraud()], mask=True).subject == (
        "Security alert - Fraud detected: 1 payment, batch 20261124T080501Z-5f3a9c"
    )
    two = build_mail(facts(2), [fraud(0), fraud(1)], mask=True)
    assert two.subject.startswith("Security alert - Fraud detected: 2 payments, batch ")


def test_body_has_amounts_model_run_and_payments() -> None:
    mail = build_mail(facts(2), [fraud(0, amt=1234.5), fraud(1, 0.99, amt=10.02, merchant="Other")], mask=True)
    seen = text(mail.html)
    for expected in (
        "Payments scored 1,873",
        "Total amount 1,244.52",
        "Largest amount 1,234.50",
        "fraud_scoring version 3 run 7c9e6679f2a04b0f8d1c5e3b2a190477",
        "2026-11-24 08:05:04 UTC",
        "455612*********2345",
        "64b632ebfbc52a1075747f9301db22b8",
        "99.0 %",
        "Nothing was blocked",
    ):
        assert expected in seen
    assert seen.index("Other") < seen.index("Osinski")
    assert 'href="https://airflow.test/dags/score_payments/runs/1"' in mail.html
    assert 'href="https://mlflow.test/#/experiments/1/runs/7c9e"' in mail.html


def test_body_loads_nothing_and_has_no_style_sheet() -> None:
    html = build_mail(facts(), [fraud()], mask=True).html
    assert not re.search(r"<(img|script|style|link)\b|src=|url\(", html)


def test_text_of_a_payment_is_escaped_and_no_template() -> None:
    mail = build_mail(facts(), [fraud(merchant="<script>x</script>{{ 7 * 7 }}", category="a&b")], mask=True)
    assert "<script>" not in mail.html
    assert "&lt;script&gt;x&lt;/script&gt;{{ 7 * 7 }}" in mail.html
    assert "a&amp;b" in mail.html


def test_invalid_url_becomes_no_link() -> None:
    html = build_mail(facts(model_url="javascript:alert(1)"), [fraud()], mask=True).html
    assert "javascript" not in html


def test_missing_columns_are_shown_as_a_dash() -> None:
    bare = Fraud("topic_1/0/0", 0, None, b'{"category": "", "is_fraud": 1}')
    seen = text(build_mail(facts(), [bare], mask=True).html)
    assert "Total amount 0.00" in seen
    assert "Largest amount —" in seen
    assert "— — · — card — — — —" in seen


@pytest.mark.parametrize("amount", ["n/a", "", None, True, [1], {"a": 1}, "1" * 50, "1e400000", "nan"])
def test_unreadable_amount_is_not_in_the_total_and_mentioned(amount: object) -> None:
    seen = text(build_mail(facts(2), [fraud(0), fraud(1, amt=amount)], mask=True).html)
    assert "Total amount 16.18" in seen
    assert "1 of the fraudulent payments has no readable amount" in seen


def test_amount_as_text_is_in_the_total() -> None:
    seen = text(build_mail(facts(2), [fraud(0), fraud(1, amt=" 3.82 ")], mask=True).html)
    assert "Total amount 20.00" in seen
    assert "no readable amount" not in seen


def test_body_has_neither_names_nor_whole_card_numbers() -> None:
    mail = build_mail(facts(), [fraud()], mask=True)
    assert "Myers" not in mail.html
    assert "4556123412349012345" not in mail.html + mail.csv.decode()


def test_card_numbers_are_shown_without_mask() -> None:
    mail = build_mail(facts(), [fraud()], mask=False)
    assert "4556123412349012345" in mail.html
    assert rows(mail.csv)[0]["cc_num"] == "4556123412349012345"


def test_long_values_do_not_make_the_body_large() -> None:
    mail = build_mail(
        facts(30), [fraud(number, merchant="x" * 100_000, amt="9" * 100_000) for number in range(30)], mask=True
    )
    assert len(mail.html) < 60_000


def test_payments_are_sorted_by_probability() -> None:
    frauds = [fraud(0, 0.6), fraud(1, None), fraud(2, 0.9), fraud(3, float("nan")), fraud(4, 0.9)]
    mail = build_mail(facts(5), frauds, mask=True)
    assert [row["source"][-1] for row in rows(mail.csv)] == ["2", "4", "0", "1", "3"]


def test_attachment_limit_keeps_the_most_probable_payments() -> None:
    frauds = [fraud(number, number / 1000) for number in range(1000)]
    mail = build_mail(facts(1000), frauds, mask=True, max_attachment_bytes=20_000)
    kept = rows(mail.csv)
    assert len(mail.csv) <= 20_000
    assert mail.left_out == 1000 - len(kept) > 0
    assert [row["source"] for row in kept] == [f"topic_1/0/{999 - rank}" for rank in range(len(kept))]
    seen = text(mail.html)
    assert f"{mail.left_out} more do not fit into a mail" in seen
    assert "topic topic_2, with is_fraud 1 and the header batch_id 20261124T080501Z-5f3a9c" in seen
    assert "Total amount 16,180.00" in seen


def test_limit_of_zero_bytes_leaves_every_payment_out() -> None:
    mail = build_mail(facts(2), [fraud(0), fraud(1)], mask=True, max_attachment_bytes=0)
    assert (mail.left_out, rows(mail.csv)) == (2, [])
    assert "Osinski" in mail.html


def test_memory_depends_on_the_attachment_limit_and_not_on_the_frauds() -> None:
    def many() -> Iterator[Fraud]:
        for number in range(20_000):
            yield fraud(number, number / 20_000)

    tracemalloc.start()
    try:
        mail = build_mail(facts(20_000), many(), mask=True, max_attachment_bytes=50_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert mail.left_out > 19_000
    # All records together are 7 MB.
    assert peak < 2_000_000


def test_message_id_depends_on_group_batch_and_ranges() -> None:
    first = build_mail(facts(), [fraud()], mask=True).message_id
    again = build_mail(facts(run_id="manual__2", ranges=facts().ranges[::-1]), [fraud()], mask=True).message_id
    scored_again = build_mail(facts(batch_id="x"), [fraud()], mask=True).message_id
    other = build_mail(facts(ranges=(("topic_1", 0, 0, 101), ("topic_1", 1, 5, 90))), [fraud()], mask=True).message_id
    assert re.fullmatch(r"<fraud-report\.[0-9a-f]{32}@[a-z.-]+>", first)
    assert first == again
    assert len({first, other, scored_again}) == 3
    assert build_mail(facts(group="another"), [fraud()], mask=True).message_id != first


def test_missing_frauds_are_an_error() -> None:
    with pytest.raises(ReportError, match="3 frauds were counted, but the staged files hold 1"):
        build_mail(facts(3), [fraud()], mask=True)


@pytest.mark.parametrize("record", [b"not json 4556123412349012", b'["4556123412349012"]', b"", b'{"amt": "\xff"}'])
def test_damaged_record_is_named_and_not_quoted(record: bytes) -> None:
    with pytest.raises(ReportError, match="topic_1/0/0 row 0 is not a JSON object") as error:
        build_mail(facts(), [Fraud("topic_1/0/0", 0, 0.9, record)], mask=True)
    assert "4556" not in str(error.value)
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__
