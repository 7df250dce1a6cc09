"""What docs/security.md and docs/operations.md have an operator delete from the ledger: all of it, and nothing else."""

from __future__ import annotations

import json

import pytest

from include.ledger.connection import LedgerConnection
from tests.support.ledger import add_predictions, query
from tests.support.pages import block
from tests.support.payments import payment

CARD, OTHER = 4_111_111_111_111_111, 4_222_222_222_222_222
TABLES = ("predictions", "replaced_predictions", "confirmations", "confirmation_changes", "batches")


@pytest.fixture
def known(ledger: LedgerConnection) -> LedgerConnection:
    """A payment of each card as it stands, and one of each whose place another payment has taken; all are confirmed."""
    for trans_num, card in (("before", CARD), ("other's before", OTHER)):
        add_predictions(ledger, payment(1.5, trans_num=trans_num, cc_num=card))
    query(
        ledger,
        "UPDATE ledger.predictions SET (trans_num, cc_num, payment, scored_at, output_offset) = "
        "ROW ('later ' || source_offset, %s, '{}', scored_at + interval '1 day', output_offset + 1000)",
        str(OTHER),
    )
    for trans_num, card in (("now", CARD), ("other's now", OTHER)):
        add_predictions(ledger, payment(2.5, trans_num=trans_num, cc_num=card), hour=9)
    query(
        ledger,
        "INSERT INTO ledger.confirmations (trans_num, fraud, confirmed_by, origin) "
        "SELECT trans_num, true, 'alice', 'terminal' FROM ledger.all_predictions",
    )
    return ledger


def rows_of(ledger: LedgerConnection) -> dict[str, list[str]]:
    return {
        table: sorted(text for (text,) in query(ledger, f"SELECT to_json(one)::text FROM ledger.{table} AS one"))
        for table in TABLES
    }


def test_one_cardholder_is_forgotten_and_nobody_else(known: LedgerConnection):
    before = rows_of(known)
    query(known, block("security.md", "BEGIN;"))
    left = rows_of(known)
    assert all(before[table] for table in TABLES[:4])
    for table in TABLES[:2]:
        assert left[table] == [row for row in before[table] if json.loads(row)["cc_num"] == str(OTHER)]
    for table in TABLES[2:4]:
        assert left[table] == [row for row in before[table] if json.loads(row)["trans_num"] not in ("before", "now")]


def test_what_is_old_is_deleted_alone(known: LedgerConnection):
    query(known, "UPDATE ledger.predictions SET scored_at = now() - interval '3 years' WHERE trans_num <> 'now'")
    query(known, "UPDATE ledger.replaced_predictions SET scored_at = now() - interval '3 years'")
    query(known, block("operations.md", "DELETE FROM ledger.replaced_predictions WHERE"))
    assert query(known, "SELECT trans_num FROM ledger.all_predictions") == [("now",)]
