"""The SQL in docs/security.md and docs/operations.md that deletes one cardholder's data, or old data, and no more."""

from __future__ import annotations

import json

import pytest

from include.ledger.connection import LedgerConnection
from tests.support.ledger import add_predictions, query
from tests.support.pages import block
from tests.support.payments import payment

CARD, OTHER_CARD = 4_111_111_111_111_111, 4_222_222_222_222_222
TABLES = ("predictions", "replaced_predictions", "confirmations", "confirmation_changes", "batches")


@pytest.fixture
def ledger_with_history(ledger: LedgerConnection) -> LedgerConnection:
    """A current and a replaced prediction of each card, all with verdicts."""
    for trans_num, card in (("before", CARD), ("other's before", OTHER_CARD)):
        add_predictions(ledger, payment(1.5, trans_num=trans_num, cc_num=card))
    query(
        ledger,
        "UPDATE ledger.predictions SET (trans_num, cc_num, payment, scored_at, output_offset) = "
        "ROW ('later ' || source_offset, %s, '{}', scored_at + interval '1 day', output_offset + 1000)",
        str(OTHER_CARD),
    )
    for trans_num, card in (("now", CARD), ("other's now", OTHER_CARD)):
        add_predictions(ledger, payment(2.5, trans_num=trans_num, cc_num=card), hour=9)
    query(
        ledger,
        "INSERT INTO ledger.confirmations (trans_num, fraud, confirmed_by, origin) "
        "SELECT trans_num, true, 'alice', 'terminal' FROM ledger.all_predictions",
    )
    return ledger


def table_rows(ledger: LedgerConnection) -> dict[str, list[str]]:
    return {
        table: sorted(text for (text,) in query(ledger, f"SELECT to_json(one)::text FROM ledger.{table} AS one"))
        for table in TABLES
    }


def test_erasure_deletes_one_cardholder_only(ledger_with_history: LedgerConnection):
    before = table_rows(ledger_with_history)
    query(ledger_with_history, block("security.md", "BEGIN;"))
    after = table_rows(ledger_with_history)
    assert all(before[table] for table in TABLES[:4])
    for table in TABLES[:2]:
        assert after[table] == [row for row in before[table] if json.loads(row)["cc_num"] == str(OTHER_CARD)]
    for table in TABLES[2:4]:
        assert after[table] == [row for row in before[table] if json.loads(row)["trans_num"] not in ("before", "now")]


def test_cleanup_deletes_old_predictions_only(ledger_with_history: LedgerConnection):
    query(
        ledger_with_history,
        "UPDATE ledger.predictions SET scored_at = now() - interval '3 years' WHERE trans_num <> 'now'",
    )
    query(ledger_with_history, "UPDATE ledger.replaced_predictions SET scored_at = now() - interval '3 years'")
    query(ledger_with_history, block("operations.md", "DELETE FROM ledger.replaced_predictions WHERE"))
    assert query(ledger_with_history, "SELECT trans_num FROM ledger.all_predictions") == [("now",)]
