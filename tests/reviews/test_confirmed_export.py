"""The export of confirmed payments with the real database and the real S3."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from airflow.sdk.exceptions import AirflowFailException

from dev.stack.part import BIN, ROOT
from fraud_scoring.confirmed_bucket import Bucket, export_confirmed, main
from fraud_scoring.operators.export_operator import ExportConfirmedOperator
from include.errors import ExportAccessError, ExportError, LedgerSchemaError, SettingError
from include.ledger.connection import LedgerConnection
from include.payments.columns import COLUMNS
from include.reviews import confirmed_export as exporting
from include.reviews.verdict_writer import VerdictWriter
from include.settings import Settings
from tests.reviews.conftest import Place
from tests.support.ledger import add_predictions, make_topic_again, query
from tests.support.payments import payment

CARD = 4_111_111_111_111_111_111
# Kills itself where it stores its first file: before, or behind.
KILLED = """
import os, signal, sys
from fraud_scoring import confirmed_bucket as export

class Killed(export.Bucket):
    def put(self, key, data):
        if sys.argv[1] == "behind":
            super().put(key, data)
        os.kill(os.getpid(), signal.SIGKILL)

export.Bucket = Killed
export.main()
"""


@pytest.fixture(autouse=True)
def used(ledger_connection: LedgerConnection, place: Place) -> None:
    """Use both in each test."""


def known(ledger: LedgerConnection, *names: str, **values: Any) -> None:
    add_predictions(ledger, *(payment(950.75, trans_num=name, **values) for name in names))


def confirm(ledger: LedgerConnection, *names: str, fraud: bool = True, by: str = "ann") -> None:
    with VerdictWriter.opened(ledger) as confirmations:
        for name in names:
            confirmations.confirm(name, fraud=fraud, reviewer=by)


def elsewhere() -> str:
    """Return the connection aws_default to a port without S3."""
    given = json.loads(os.environ["AIRFLOW_CONN_AWS_DEFAULT"])
    return json.dumps(given | {"extra": given["extra"] | {"endpoint_url": "http://127.0.0.1:9"}})


def exports(ledger: LedgerConnection) -> list[tuple[Any, ...]]:
    return query(ledger, "SELECT payments, finished_at IS NOT NULL FROM ledger.exports ORDER BY export_id")


def test_file_has_the_columns_of_training_data_and_the_verdict(ledger: LedgerConnection, place: Place) -> None:
    card = 4_999_999_999_999_999_999
    add_predictions(ledger, payment(0.1, trans_num="a", cc_num=card, zip="06441", city_pop=5438), prediction=True)
    confirm(ledger, "a", fraud=False)
    assert [file.payments for file in export_confirmed()[1]] == [1]
    (name,) = place.names()
    assert name.startswith(f"confirmed-{datetime.now(UTC):%Y%m%dT}")
    assert name.endswith("Z.parquet")
    table = place.table(name)
    assert tuple(table.column_names) == COLUMNS
    (row,) = table.to_pylist()
    assert row | {"first": "", "last": "", "street": ""} == {
        "trans_date_trans_time": "2026-03-04 15:56:25", "cc_num": "4999999999999999999",
        "merchant": "fraud_McDermott, Osinski", "category": "home", "amt": 0.1, "first": "", "last": "", "gender": "F",
        "street": "", "city": "Higganum", "state": "CT", "zip": "06441", "lat": 41.4682, "long": -72.5751,
        "city_pop": 5438.0, "job": "Librarian, academic", "dob": "1964-11-17", "trans_num": "a",
        "unix_time": 1772639785000, "merch_lat": 41.581898, "merch_long": -73.130293, "is_fraud": 0,
    }  # fmt: skip
    assert table.schema.field("is_fraud").type == pa.int64()
    assert {table.schema.field(text).type for text in ("cc_num", "zip", "trans_num")} == {pa.string()}


def test_unusual_values_of_payments_are_exported(ledger: LedgerConnection, place: Place) -> None:
    values = {
        "trans_num": "odd", "merchant": "\ud800 x", "amt": "sixteen", "lat": True, "long": "1.5", "merch_lat": 1e999,
        "city_pop": None, "unix_time": 1.5, "zip": 6441.0, "job": ["a"], "cc_num": 10**30,
    }  # fmt: skip
    odd, older = payment(1, **values), payment(2, trans_num="older", current_time=1772639785001)
    del odd.values["category"], older.values["trans_date_trans_time"], older.values["unix_time"]
    known(ledger, "odd", "older")
    for one in (odd, older):
        sql = "UPDATE ledger.predictions SET payment = %s WHERE trans_num = %s"
        query(ledger, sql, json.dumps(one.scored(1)).replace("Infinity", "1e999"), one.values["trans_num"])
    confirm(ledger, "odd", "older")
    export_confirmed()
    first, second = place.table(place.names()[0]).to_pylist()
    expected = {
        "merchant": "? x", "amt": None, "lat": None, "long": 1.5, "merch_lat": None, "city_pop": None,
        "unix_time": None, "zip": "6441.0", "job": '["a"]', "cc_num": "1" + "0" * 30, "category": None,
    }  # fmt: skip
    assert {name: first[name] for name in expected} == expected
    assert (second["trans_date_trans_time"], second["unix_time"]) == ("2026-03-04 15:56:25", 1772639785001)


def test_export_uses_the_newest_prediction_of_a_payment(ledger: LedgerConnection, place: Place) -> None:
    add_predictions(ledger, payment(2.0, trans_num="a", cc_num=CARD, job="older"), hour=8)
    add_predictions(ledger, payment(2.0, trans_num="a", cc_num=CARD, job="newer"), hour=9)
    confirm(ledger, "a")
    sql = (
        "UPDATE ledger.predictions SET scored_at = scored_at + interval '1 hour', payment = %s WHERE source_offset = 1"
    )
    query(ledger, sql, json.dumps(payment(2.0, trans_num="a", job="scored again").scored(1)))
    export_confirmed()
    assert place.table(place.names()[0]).column("job").to_pylist() == ["scored again"]


def test_payments_of_a_recreated_topic_are_exported(ledger: LedgerConnection, place: Place) -> None:
    known(ledger, "a")
    confirm(ledger, "a")
    make_topic_again(ledger)
    assert [file.payments for file in export_confirmed()[1]] == [1]
    assert place.table(place.names()[0]).column("amt").to_pylist() == [950.75]
    assert export_confirmed()[1] == []


def test_verdict_is_exported_once_and_again_after_a_change(ledger: LedgerConnection, place: Place) -> None:
    known(ledger, "a", "b", "c")
    assert export_confirmed()[1] == []
    assert place.names() == []
    confirm(ledger, "a", "b")
    export_confirmed()
    confirm(ledger, "a", "b")
    confirm(ledger, "a", by="bob")
    assert export_confirmed()[1] == []
    confirm(ledger, "a", fraud=False)
    confirm(ledger, "c")
    export_confirmed()
    assert [place.table(name).column("trans_num").to_pylist() for name in place.names()] == [["a", "b"], ["a", "c"]]
    assert place.newest() == {"a": 0, "b": 1, "c": 1}
    assert exports(ledger) == [(2, True), (2, True)]


def test_file_names_sort_by_time_if_the_clock_is_set_back(ledger: LedgerConnection, place: Place) -> None:
    known(ledger, "a")
    confirm(ledger, "a")
    export_confirmed()
    query(ledger, "UPDATE ledger.exports SET started_at = '2100-01-01 00:00+00'")
    confirm(ledger, "a", fraud=False)
    export_confirmed()
    assert place.names()[1] == "confirmed-21000101T000000000001Z.parquet"
    assert place.newest() == {"a": 0}


@pytest.mark.parametrize("where", ["before", "behind"])
def test_killed_export_is_resumed(ledger: LedgerConnection, place: Place, where: str) -> None:
    known(ledger, "a", "b", "c", "d")
    confirm(ledger, "a", "b", "c")
    path = {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'plugins'}"}
    killed = subprocess.run([sys.executable, "-c", KILLED, where], env=os.environ | path, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert exports(ledger) == [(None, False)]
    before = place.names()
    assert len(before) == (where == "behind")
    # Meanwhile people go on.
    confirm(ledger, "a", fraud=False)
    confirm(ledger, "d")
    assert [file.payments for file in export_confirmed()[1]] == [2, 2]
    assert place.names()[:1] == (before or place.names()[:1])
    assert [place.table(name).column("trans_num").to_pylist() for name in place.names()] == [["b", "c"], ["a", "d"]]
    assert place.newest() == {"a": 0, "b": 1, "c": 1, "d": 1}
    assert exports(ledger) == [(2, True), (2, True)]
    assert export_confirmed()[1] == []


def test_interrupted_export_without_verdicts_left_stores_no_file(
    ledger: LedgerConnection, place: Place, monkeypatch: Any
) -> None:
    known(ledger, "a")
    confirm(ledger, "a")
    with monkeypatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_AWS_DEFAULT", elsewhere())
        with pytest.raises(
            ExportError, match=r"cannot write confirmed-.* to s3://staging/.*: check that the server is up"
        ):
            export_confirmed()
    confirm(ledger, "a", fraud=False)
    assert [file.payments for file in export_confirmed()[1]] == [0, 1]
    assert len(place.names()) == 1
    assert place.newest() == {"a": 0}


def test_two_exports_at_once_store_each_verdict_once(ledger: LedgerConnection, place: Place) -> None:
    names = [f"p{number:03}" for number in range(200)]
    known(ledger, *names)
    confirm(ledger, *names)
    bucket = Bucket.from_settings(Settings.from_environment())
    threads = [threading.Thread(target=exporting.export, args=(ledger, bucket)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(name for file in place.names() for name in place.table(file).column("trans_num").to_pylist()) == names
    assert exports(ledger) == [(200, True)]


def test_large_export_is_several_files(ledger: LedgerConnection, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "MAX_TRANS_NUMS", 3)
    monkeypatch.setattr(exporting, "_FETCHED_ROWS", 2)
    names = list("abcdefgh")
    known(ledger, *names)
    confirm(ledger, *names)
    assert [file.payments for file in export_confirmed()[1]] == [3, 3, 2]
    assert sorted(place.newest()) == names


def test_verdict_without_payment_is_not_exported(ledger: LedgerConnection, place: Place) -> None:
    known(ledger, "a", "b")
    confirm(ledger, "a", "b")
    query(ledger, "DELETE FROM ledger.predictions WHERE trans_num = 'a'")
    assert [file.payments for file in export_confirmed()[1]] == [1]
    known(ledger, "a")
    query(ledger, "UPDATE ledger.predictions SET source_offset = 0 WHERE trans_num = 'a'")
    assert [file.payments for file in export_confirmed()[1]] == [1]


def test_error_names_wrong_keys_without_their_values(ledger: LedgerConnection, monkeypatch: pytest.MonkeyPatch) -> None:
    known(ledger, "a")
    confirm(ledger, "a")
    given = json.loads(os.environ["AIRFLOW_CONN_AWS_DEFAULT"])
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(given | {"password": "wr0ng"}))
    with pytest.raises(ExportAccessError, match="check the keys in the connection aws_default") as told:
        export_confirmed()
    assert "wr0ng" not in str(told.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "FRAUD_CONFIRMED_URL is not set: .* s3://bucket/confirmed"),
        ("/tmp/x", "not in the form s3://bucket/prefix"),
    ],
)
def test_invalid_confirmed_url_is_an_error(monkeypatch: pytest.MonkeyPatch, url: str, message: str) -> None:
    monkeypatch.setenv("FRAUD_CONFIRMED_URL", url)
    with pytest.raises(SettingError, match=message):
        export_confirmed()


@pytest.mark.parametrize("login", ["key:s3cret@", "key:s3/cret@", "s3cret@", "key:s3cret"])
def test_confirmed_url_with_keys_is_refused_and_not_quoted(login: str) -> None:
    with pytest.raises(SettingError, match="put keys into the connection aws_default") as told:
        Bucket.from_settings(Settings(confirmed_url=f"s3://{login}bucket/confirmed"))
    assert "cret" not in str(told.value)


def test_slashes_around_the_prefix_do_not_matter() -> None:
    for url, prefix in (("s3://b", ""), ("s3://b/", ""), ("s3://b/x/y", "x/y/"), ("s3://b/x/", "x/")):
        assert Bucket.from_settings(Settings(confirmed_url=url)) == Bucket("b", prefix)


def test_ledger_without_tables_is_an_error(ledger: LedgerConnection, capsys: pytest.CaptureFixture[str]) -> None:
    query(ledger, "DROP SCHEMA ledger CASCADE")
    with pytest.raises(LedgerSchemaError):
        export_confirmed()
    assert main() == 1
    assert capsys.readouterr().err.startswith("fraud export-confirmed: the ledger has no tables yet")


def test_command_exports_and_reports_the_files(ledger: LedgerConnection, place: Place) -> None:
    known(ledger, "a", "b")
    confirm(ledger, "a", "b")

    def run() -> subprocess.CompletedProcess[str]:
        words = [BIN / "fraud", "export-confirmed"]
        return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)

    done = run()
    assert done.returncode == 0, done.stderr
    assert done.stdout == (f"{place.names()[0]}: 2 payments\n2 confirmed payments were exported to {place.url}\n")
    assert run().stdout == "nothing to export: no verdict is new\n"


def test_task_logs_and_returns_the_files(ledger: LedgerConnection, place: Place) -> None:
    known(ledger, "a")
    confirm(ledger, "a")
    told: list[Any] = []

    class Ti:
        def xcom_push(self, key: str, value: Any) -> None:
            told.append((key, value))

    for _ in range(2):
        ExportConfirmedOperator(task_id="export_confirmed").execute({"ti": Ti()})  # type: ignore[typeddict-item]
    assert told == [("counts", {"files": 1, "payments": 1}), ("counts", {"files": 0, "payments": 0})]


def test_missing_setting_fails_the_task_without_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAUD_CONFIRMED_URL", "")
    with pytest.raises(AirflowFailException, match="SettingError: FRAUD_CONFIRMED_URL is not set"):
        ExportConfirmedOperator(task_id="export_confirmed").execute({})
