"""If several payments have one trans_num, a verdict names its payment, from the review to S3."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from click.testing import Result
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool
from typer.testing import CliRunner

from fraud_scoring.confirmed_bucket import export_confirmed
from include.cli.main import app
from include.ledger.connection import LedgerConnection
from include.ledger.schema import _config
from tests.reviews.conftest import Place
from tests.support.ledger import add_predictions, make_topic_again, query
from tests.support.payments import payment

Fraud = Callable[..., Result]
STOLEN = payment(950.75, trans_num="T")
GROCERIES = payment(12.5, trans_num="T")


@pytest.fixture
def fraud(ledger_connection: LedgerConnection, monkeypatch: pytest.MonkeyPatch) -> Fraud:
    """Run `fraud …`."""
    monkeypatch.setenv("LOGNAME", "ann")
    return lambda *words: CliRunner().invoke(app, [*map(str, words)])


@pytest.fixture
def shared_trans_num(ledger: LedgerConnection) -> LedgerConnection:
    """Two payments with one trans_num, at topic_1/0/0 and topic_1/0/1; the later one is genuine."""
    add_predictions(ledger, STOLEN, hour=7)
    add_predictions(ledger, GROCERIES, prediction=False, hour=8)
    return ledger


def exported(place: Place) -> dict[float, int]:
    """Export, and return the verdicts by amount as training reads them."""
    export_confirmed()
    frames = [place.table(name).to_pandas() for name in place.names()]
    return {amt: fraud for frame in frames for amt, fraud in zip(frame["amt"], frame["is_fraud"], strict=True)}


def verdicts(tmp_path: Path, *lines: str) -> Path:
    file = tmp_path / "verdicts.csv"
    file.write_text("\n".join(["source,row,trans_num,verdict", *lines]) + "\n")
    return file


def test_verdict_on_one_payment_does_not_export_the_other(
    shared_trans_num: LedgerConnection, fraud: Fraud, place: Place, tmp_path: Path
) -> None:
    """The line of a mailed report names the source; the other payment is newer."""
    assert fraud("confirm", "--csv", verdicts(tmp_path, "topic_1/0/0,0,T,fraud")).exit_code == 0
    assert exported(place) == {950.75: 1}


def test_ambiguous_trans_num_is_refused_with_the_sources_to_choose_from(
    shared_trans_num: LedgerConnection, fraud: Fraud
) -> None:
    done = fraud("confirm", "T", "fraud")
    assert done.exit_code == 1
    assert done.stderr == (
        "fraud confirm: 2 payments have the trans_num T. Choose one by --source and --row: "
        "topic_1/0/0 row 0, topic_1/0/1 row 0. `fraud trace T` shows them\n"
    )
    assert query(shared_trans_num, "SELECT count(*) FROM ledger.confirmations") == [(0,)]


def test_each_payment_has_its_own_verdict(shared_trans_num: LedgerConnection, fraud: Fraud, place: Place) -> None:
    done = fraud("confirm", "T", "fraud", "--source", "topic_1/0/0", "--row", 0)
    assert done.stdout == "T: fraud (applied)\n"
    assert fraud("confirm", "T", "genuine", "--source", "topic_1/0/1").stdout == "T: genuine (applied)\n"
    assert fraud("confirm", "T", "fraud", "--source", "topic_1/0/0").stdout == "T: fraud (unchanged)\n"
    assert exported(place) == {950.75: 1, 12.5: 0}
    told = fraud("trace", "T").stdout
    assert re.findall(r"(fraud|genuine), by ann .*, for (\S+ row \d)", told) == [
        ("genuine", "topic_1/0/1 row 0"),
        ("fraud", "topic_1/0/0 row 0"),
    ]
    assert query(shared_trans_num, "SELECT amt, fraud_confirmed FROM ledger.payments") == [(12.5, False)]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--source", "topic_1/0/7"), 1, "the ledger has no payment at topic_1/0/7 with the trans_num T"),
        (("--source", "topic_1/0/0", "--row", 3), 1, "no payment at topic_1/0/0 row 3 with the trans_num T"),
        (("--source", "noon"), 2, "--source 'noon': give TOPIC/PARTITION/OFFSET, such as topic_1/0/1640"),
        (("--row", 0), 2, "--row with --source"),
    ],
)
def test_source_without_payment_is_refused(
    shared_trans_num: LedgerConnection, fraud: Fraud, words: tuple[Any, ...], code: int, message: str
) -> None:
    done = fraud("confirm", "T", "fraud", *words)
    assert done.exit_code == code
    assert message in re.sub(r"[\s│]+", " ", done.stderr)


def test_lines_with_ambiguous_trans_num_are_bad(
    shared_trans_num: LedgerConnection, fraud: Fraud, tmp_path: Path
) -> None:
    add_predictions(shared_trans_num, payment(1.5, trans_num="alone"))
    lines = ",,T,fraud", "topic_1/0/9,0,T,fraud", "topic_1/0/1,0,T,no", "the bank,x,alone,fraud", "topic_1/0/1,0,T,yes"
    file = verdicts(tmp_path, *lines)
    done = fraud("confirm", "--csv", file)
    assert done.stderr.splitlines() == [
        f"{file}, line 2: has a trans_num of several payments: add the columns source and row, as reports have them",
        f"{file}, line 3: has a source at which the ledger has no payment with that trans_num",
        f"{file}, line 4: contradicts line 6, which has the same payment",
        f"{file}, line 6: contradicts line 4, which has the same payment",
    ]
    assert done.stdout == "applied 1, changed 0, unchanged 0, passed over 0, bad 4\n"


def test_payment_that_was_sent_again_is_one_payment(ledger: LedgerConnection, fraud: Fraud, place: Place) -> None:
    add_predictions(ledger, STOLEN, hour=7)
    assert fraud("confirm", "T", "fraud").exit_code == 0
    add_predictions(ledger, STOLEN, hour=9)
    assert fraud("confirm", "T", "fraud").stdout == "T: fraud (unchanged)\n"
    assert fraud("confirm", "T", "genuine", "--source", "topic_1/0/1").stdout == "T: genuine (changed)\n"
    assert fraud("confirm", "--list").stdout.startswith("No fraud waits")
    assert query(ledger, "SELECT source_offset, fraud FROM ledger.confirmations") == [(0, False)]
    assert query(ledger, "SELECT fraud_confirmed FROM ledger.payments") == [(False,)]
    assert exported(place) == {950.75: 0}


def test_row_distinguishes_payments_of_one_message(ledger: LedgerConnection, fraud: Fraud) -> None:
    add_predictions(ledger, STOLEN, GROCERIES)
    query(ledger, "UPDATE ledger.predictions SET (source_offset, source_row) = ROW (0, source_offset)")
    query(ledger, "TRUNCATE ledger.replaced_predictions")
    done = fraud("confirm", "T", "fraud", "--source", "topic_1/0/0")
    assert "2 payments have the trans_num T" in done.stderr
    assert fraud("confirm", "T", "fraud", "--source", "topic_1/0/0", "--row", 1).exit_code == 0
    assert query(ledger, "SELECT source_row FROM ledger.confirmations") == [(1,)]


def test_payment_is_exported_after_another_one_replaced_its_source(
    ledger: LedgerConnection, fraud: Fraud, place: Place
) -> None:
    add_predictions(ledger, STOLEN)
    assert fraud("confirm", "T", "fraud").exit_code == 0
    make_topic_again(ledger)
    add_predictions(ledger, GROCERIES, prediction=False, hour=9)
    assert exported(place) == {950.75: 1}


def test_list_names_each_payment_with_a_shared_trans_num(
    ledger: LedgerConnection, fraud: Fraud, place: Place, tmp_path: Path
) -> None:
    add_predictions(ledger, STOLEN, GROCERIES)
    file = tmp_path / "review.csv"
    assert fraud("confirm", "--list", "--output", file).stdout.startswith("2 frauds to review")
    with file.open(encoding="utf-8-sig", newline="") as opened:
        rows = list(csv.DictReader(opened))
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"verdict": "fraud" if row["amt"] == "950.75" else "genuine"} for row in rows)
    assert fraud("confirm", "--csv", file).stdout == "applied 2, changed 0, unchanged 0, passed over 0, bad 0\n"
    assert exported(place) == {950.75: 1, 12.5: 0}
    assert fraud("confirm", "--list").stdout.startswith("No fraud waits")


def test_newest_file_has_all_verdicts_on_a_trans_num(
    shared_trans_num: LedgerConnection, fraud: Fraud, place: Place
) -> None:
    """It replaces a file that was written before verdicts had sources and may hold the wrong payment."""
    for offset, verdict in ((0, "fraud"), (1, "fraud"), (1, "genuine")):
        fraud("confirm", "T", verdict, "--source", f"topic_1/0/{offset}")
        export_confirmed()
    files = [place.table(name).to_pydict() for name in place.names()]
    assert [sorted(zip(file["amt"], file["is_fraud"], strict=True)) for file in files] == [
        [(950.75, 1)], [(12.5, 1), (950.75, 1)], [(12.5, 0), (950.75, 1)],
    ]  # fmt: skip
    assert export_confirmed()[1] == []


def test_migration_keeps_verdicts_and_adds_their_source_if_it_is_certain(
    ledger: LedgerConnection, fraud: Fraud, place: Place
) -> None:
    """For a trans_num with several payments the source is unknown, and none of them is exported."""
    query(ledger, "DROP SCHEMA ledger CASCADE")
    upgrade(ledger, "0001")
    add_predictions(ledger, STOLEN, GROCERIES, payment(3.5, trans_num="alone"))
    again = payment(4.5, trans_num="again")
    add_predictions(ledger, again, again)
    for name in ("T", "alone", "again", "gone"):
        query(ledger, "INSERT INTO ledger.confirmations VALUES (%s, true, 'ann', now(), 'test')", name)
    upgrade(ledger, "head")
    assert query(ledger, "SELECT trans_num, source_offset FROM ledger.confirmations ORDER BY 1") == [
        ("T", None), ("again", 4), ("alone", 2), ("gone", None),
    ]  # fmt: skip
    assert exported(place) == {3.5: 1, 4.5: 1}
    assert [line.split()[0] for line in fraud("confirm", "--list").stdout.splitlines()[1:]] == ["T", "T"]
    assert "for an unknown payment among them" in fraud("trace", "T").stdout
    assert fraud("confirm", "T", "fraud", "--source", "topic_1/0/0").stdout == "T: fraud (applied)\n"
    assert exported(place) == {3.5: 1, 4.5: 1, 950.75: 1}


def upgrade(ledger: LedgerConnection, version: str) -> None:
    with ledger.open("test") as connection:
        engine = create_engine("postgresql+psycopg2://", creator=lambda: connection, poolclass=NullPool)
        with engine.connect() as migrating:
            config = _config()
            config.attributes["connection"] = migrating
            command.upgrade(config, version)
