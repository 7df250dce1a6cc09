"""`fraud confirm` with the real database."""

from __future__ import annotations

import csv
import resource
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from include.cli.main import app
from include.errors import ConfirmationError
from include.ledger.connection import LedgerConnection
from include.reviews.known_payments import _BY_SOURCE, _BY_TRANS_NUM, _CONFIRMED, _KNOWN
from include.reviews.unreviewed import _FRAUDS, _IS_OLD, UnreviewedFraud, unreviewed, write_csv
from include.reviews.verdict_file import Verdict, VerdictFile
from include.reviews.verdict_writer import VerdictWriter
from tests.support.ledger import add_predictions, make_topic_again, query
from tests.support.payments import payment

Fraud = Callable[..., Result]
CARD = 4_111_111_111_111_111_111


@pytest.fixture
def fraud(ledger_connection: LedgerConnection, monkeypatch: pytest.MonkeyPatch) -> Fraud:
    """Run `fraud confirm …`."""
    monkeypatch.setenv("LOGNAME", "ann")

    def invoke(*words: object) -> Result:
        return CliRunner().invoke(app, ["confirm", *map(str, words)])

    return invoke


def known(ledger: LedgerConnection, *names: str, **more: Any) -> None:
    add_predictions(ledger, *(payment(950.75, trans_num=name, cc_num=CARD) for name in names), **more)


def stored_verdicts(ledger: LedgerConnection) -> list[tuple[Any, ...]]:
    return query(ledger, "SELECT trans_num, fraud, confirmed_by FROM ledger.confirmations ORDER BY 1")


def history(ledger: LedgerConnection) -> list[tuple[Any, ...]]:
    sql = "SELECT trans_num, fraud, confirmed_by, origin FROM ledger.confirmation_changes ORDER BY change_id"
    return query(ledger, sql)


def verdicts(tmp_path: Path, *lines: str) -> Path:
    file = tmp_path / "verdicts.csv"
    file.write_text("\n".join(["trans_num,verdict", *lines]) + "\n")
    return file


def test_verdict_can_be_given_and_changed_one_by_one(ledger: LedgerConnection, fraud: Fraud) -> None:
    known(ledger, "a", "b")
    assert fraud("a", "fraud").stdout == "a: fraud (applied)\n"
    assert fraud("a", "Genuine", "--by", "bob").stdout == "a: genuine (changed)\n"
    assert fraud("a", "genuine", "--by", "bob").stdout == "a: genuine (unchanged)\n"
    assert fraud("a", "genuine", "--by", "eve").stdout == "a: genuine (unchanged)\n"
    assert stored_verdicts(ledger) == [("a", False, "eve")]
    said = "fraud confirm"
    assert history(ledger) == [("a", True, "ann", said), ("a", False, "bob", said), ("a", False, "eve", said)]
    assert query(ledger, "SELECT trans_num, fraud_confirmed FROM ledger.payments ORDER BY 1") == [
        ("a", False),
        ("b", None),
    ]


def test_unknown_payment_exits_1(ledger: LedgerConnection, fraud: Fraud) -> None:
    done = fraud("nowhere", "fraud")
    assert done.exit_code == 1
    assert "the ledger has no payment with the trans_num nowhere" in done.stderr
    assert not stored_verdicts(ledger)


def test_payment_of_a_recreated_topic_can_be_confirmed(ledger: LedgerConnection, fraud: Fraud, tmp_path: Path) -> None:
    known(ledger, "a", "b")
    known(ledger, "c", hour=7)
    make_topic_again(ledger)
    known(ledger, "new", hour=6)
    assert fraud("a", "fraud").stdout == "a: fraud (applied)\n"
    assert fraud("--csv", verdicts(tmp_path, "b,genuine")).exit_code == 0
    assert listed(fraud) == ["c", "new"]
    sql = "SELECT trans_num, fraud_confirmed FROM ledger.payments WHERE prediction ORDER BY 1"
    assert query(ledger, sql) == [("a", True), ("b", False), ("c", None), ("new", None)]
    # If a payment is sent again, its newest prediction counts.
    known(ledger, "c", hour=9, prediction=False)
    assert listed(fraud) == ["new"]
    assert query(ledger, "SELECT prediction FROM ledger.payments WHERE trans_num = 'c'") == [(False,)]


def test_alteration_is_not_a_payment_once_the_row_was_restored(ledger: LedgerConnection, fraud: Fraud) -> None:
    known(ledger, "a", prediction=False)
    for forged, amount in ((True, 1), (False, 950.75)):
        query(ledger, "UPDATE ledger.predictions SET (prediction, amt) = ROW (%s, %s)", forged, amount)
    assert listed(fraud) == []
    assert query(ledger, "SELECT prediction, amt::text FROM ledger.payments") == [(False, "950.75")]


def listed(fraud: Fraud) -> list[str]:
    done = fraud("--list")
    return [] if done.stdout.startswith("No fraud") else [line.split()[0] for line in done.stdout.splitlines()[1:]]


@pytest.mark.parametrize(
    "words",
    [(), ("a",), ("a", "perhaps"), ("a", "fraud", "--list"), ("--csv", "x", "--list"), ("--list", "--all-or-nothing"),
     ("a", "fraud", "--output", "x")],
)  # fmt: skip
def test_conflicting_options_are_refused(fraud: Fraud, words: tuple[str, ...]) -> None:
    assert fraud(*words).exit_code == 2


def test_empty_reviewer_is_refused(fraud: Fraud) -> None:
    done = fraud("a", "fraud", "--by", " ")
    assert done.exit_code == 2
    assert "give a name" in done.stderr


def test_file_applies_each_line_with_a_verdict(ledger: LedgerConnection, fraud: Fraud, tmp_path: Path) -> None:
    known(ledger, "a", "b", "c", "=d")
    fraud("c", "fraud")
    file = verdicts(tmp_path, "a,fraud", "b,", "c,genuine", "'=d,no", "a,yes")
    done = fraud("--csv", file)
    assert (done.exit_code, done.stdout) == (0, "applied 2, changed 1, unchanged 0, passed over 1, bad 0\n")
    assert stored_verdicts(ledger) == [("=d", False, "ann"), ("a", True, "ann"), ("c", False, "ann")]
    assert fraud("--csv", file).stdout == "applied 0, changed 0, unchanged 3, passed over 1, bad 0\n"
    origin = "fraud confirm --csv verdicts.csv"
    assert history(ledger)[1:] == [
        (name, who, "ann", origin) for name, who in (("=d", False), ("a", True), ("c", False))
    ]


def test_bad_lines_are_reported_and_the_others_applied(ledger: LedgerConnection, fraud: Fraud, tmp_path: Path) -> None:
    known(ledger, "a", "b", "c")
    lines = "a,fraud", "nowhere,fraud", "b,fraud", "c,perhaps", "b,genuine", "b,fraud"
    file = verdicts(tmp_path, *lines)
    done = fraud("--csv", file)
    assert done.exit_code == 1
    assert done.stderr.splitlines() == [
        f"{file}, line 3: has a trans_num that is not in the ledger",
        f"{file}, line 4: contradicts line 6, which has the same payment",
        f"{file}, line 5: has an unknown verdict: give fraud, genuine, or nothing",
        f"{file}, line 6: contradicts line 4, which has the same payment",
        f"{file}, line 7: contradicts line 6, which has the same payment",
    ]
    assert done.stdout == "applied 1, changed 0, unchanged 0, passed over 0, bad 5\n"
    assert stored_verdicts(ledger) == [("a", True, "ann")]


def test_all_or_nothing_applies_nothing_if_a_line_is_bad(
    ledger: LedgerConnection, fraud: Fraud, tmp_path: Path
) -> None:
    known(ledger, "a", "b")
    done = fraud("--csv", verdicts(tmp_path, "a,fraud", "nowhere,fraud"), "--all-or-nothing")
    assert done.exit_code == 1
    assert "Nothing was applied" in done.stderr
    assert not stored_verdicts(ledger)
    assert fraud("--csv", verdicts(tmp_path, "a,fraud", "b,no"), "--all-or-nothing").exit_code == 0
    assert len(stored_verdicts(ledger)) == 2


def test_invalid_file_or_database_exits_2(
    ledger: LedgerConnection, fraud: Fraud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = fraud("--csv", tmp_path / "nowhere.csv")
    assert (done.exit_code, done.stderr) == (2, f"fraud confirm: {tmp_path}/nowhere.csv: No such file or directory\n")
    file = verdicts(tmp_path, "a,fraud")
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER_DB", "postgresql://ledger:secret@127.0.0.1:9/ledger")
    for words in (("--csv", file), ("a", "fraud"), ("--list",)):
        done = fraud(*words)
        assert done.exit_code == 2
        assert done.stderr.startswith("fraud confirm: the ledger's database at 127.0.0.1:9/ledger does not answer")
        assert "secret" not in done.stderr


def many(ledger: LedgerConnection, count: int) -> None:
    query(
        ledger,
        "INSERT INTO ledger.predictions SELECT 'topic_1', number %% 3, number, 0, 'payment ' || number, '4111', 1, "
        "now(), 'm', 'c', number %% 20 = 0, 0.5, 'run', 'model', '1', 'batch', now() - number * interval '1 second', "
        "0, number, json_build_object('trans_num', 'payment ' || number) FROM generate_series(1, %s) AS number",
        count,
    )
    query(ledger, "ANALYZE ledger.predictions")


def test_thousands_of_lines_take_a_few_statements(ledger: LedgerConnection) -> None:
    many(ledger, 60_000)
    file = VerdictFile([Verdict(at + 1, (f"payment {at}",), at % 2 == 0) for at in range(1, 50_001)])
    with VerdictWriter.opened(ledger) as confirmations:
        began = time.monotonic()
        done = confirmations.confirm_all(file, reviewer="ann", origin="test")
        assert time.monotonic() - began < 20
    assert (done.applied, len(done.bad)) == (50_000, 0)


def test_two_files_at_once_cause_no_deadlock(ledger: LedgerConnection) -> None:
    names = [f"p{number}" for number in range(300)]
    known(ledger, *names)

    def confirm(by: str, order: int, fraud: bool) -> None:
        file = VerdictFile([Verdict(at, (name,), fraud) for at, name in enumerate(names[::order])])
        with VerdictWriter.opened(ledger) as confirmations:
            for _ in range(5):
                confirmations.confirm_all(file, reviewer=by, origin="test")

    threads = [threading.Thread(target=confirm, args=(str(order), order, order > 0)) for order in (1, -1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({(fraud, by) for _, fraud, by in stored_verdicts(ledger)}) == 1
    assert query(ledger, "SELECT count(*) FROM ledger.confirmation_changes WHERE confirmed_by = '1'")[0][0] % 300 == 0


def test_list_shows_frauds_without_verdict_newest_first(ledger: LedgerConnection, fraud: Fraud) -> None:
    assert fraud("--list").stdout == "No fraud waits for a review: each fraud in the ledger has a verdict.\n"
    known(ledger, "old", hour=7)
    known(ledger, "new", "reviewed")
    known(ledger, "genuine", prediction=False)
    # Scored again: the newest prediction counts, and it is listed once.
    known(ledger, "again", hour=6)
    known(ledger, "again", hour=9)
    known(ledger, "cleared", hour=6)
    known(ledger, "cleared", hour=9, prediction=False)
    add_predictions(ledger, payment(1, trans_num=None), payment(1, trans_num="odd", merchant="a\x1b[31m" + "b" * 99))
    fraud("reviewed", "genuine")
    done = fraud("--list")
    lines = [line.strip().split("  ") for line in done.stdout.splitlines()]
    assert lines[0] == ["trans_num", *lines[0][1:]]
    assert [line[0] for line in lines[1:]] == ["again", "odd", "new", "old"]
    assert "\x1b" not in done.stdout
    assert str(CARD) not in done.stdout
    assert done.stdout.splitlines()[1].split() == [
        "again", "2026-03-04", "15:56:25", "950.75", "fraud_McDermott,", "Osinski", "0.875", "fraud_scoring", "3",
        "2026-03-04", "09:00:00", "411111*********1111", "topic_1/0/5", "0",
    ]  # fmt: skip
    last = fraud("--list", "--limit", 2).stdout.splitlines()[-1]
    assert last == "These are the newest 2; more wait for a review: see --limit."


def test_list_shows_fraud_beside_a_genuine_payment_with_its_trans_num(ledger: LedgerConnection, fraud: Fraud) -> None:
    known(ledger, "N/A", hour=6)
    add_predictions(ledger, payment(1.5, trans_num="N/A"), prediction=False, hour=7)
    assert listed(fraud) == ["N/A"]
    add_predictions(ledger, payment(2.5, trans_num="N/A"), hour=8)
    assert listed(fraud) == ["N/A", "N/A"]


def test_list_ignores_altered_row_after_it_was_restored(ledger: LedgerConnection, fraud: Fraud) -> None:
    known(ledger, "a")
    for name in ("forged", "a"):
        query(ledger, "UPDATE ledger.predictions SET trans_num = %s", name)
    assert listed(fraud) == ["a"]
    assert fraud("forged", "fraud").exit_code == 1
    assert query(ledger, "SELECT trans_num FROM ledger.payments") == [("a",)]


def test_list_output_can_be_filled_in_and_applied(ledger: LedgerConnection, fraud: Fraud, tmp_path: Path) -> None:
    known(ledger, "a", "=b", "c")
    file = tmp_path / "review.csv"
    done = fraud("--list", "--output", file)
    assert done.stdout == (
        f"3 frauds to review are in {file}: fill in its column verdict, then run `fraud confirm --csv {file}`\n"
    )
    assert file.stat().st_mode & 0o777 == 0o600
    assert str(CARD) not in file.read_text()
    with file.open(encoding="utf-8-sig", newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [row["verdict"] for row in rows] == ["", "", ""]
    assert fraud("--csv", file).stdout == "applied 0, changed 0, unchanged 0, passed over 3, bad 0\n"
    again = fraud("--list", "--output", file)
    assert again.exit_code == 2
    assert "exists and may hold verdicts" in again.stderr
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, list(rows[0]), delimiter=";")
        writer.writeheader()
        writer.writerows(row | {"verdict": "fraud"} for row in rows)
    assert fraud("--csv", file).stdout == "applied 3, changed 0, unchanged 0, passed over 0, bad 0\n"
    assert fraud("--list", "--output", tmp_path / "none.csv").stdout.startswith("No fraud waits")
    assert not (tmp_path / "none.csv").exists()


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """Limit the size of files, like a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_failed_list_output_leaves_no_file(tmp_path: Path) -> None:
    one = UnreviewedFraud("a", None, None, None, None, "a model", datetime.now(UTC), "", "topic_1/0/0", 0)
    file = tmp_path / "review.csv"
    with files_end_at(1_000), pytest.raises(ConfirmationError, match=r"review\.csv: File too large"):
        write_csv(file, [one] * 1_000)
    assert list(tmp_path.iterdir()) == []
    write_csv(file, [one])
    whole = file.read_bytes()
    with pytest.raises(ConfirmationError, match="exists and may hold verdicts"):
        write_csv(file, [one] * 2)
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_bytes() == whole
    with pytest.raises(ConfirmationError, match=r"none/review\.csv: No such file or directory"):
        write_csv(tmp_path / "none" / "review.csv", [one])


def replaced(ledger: LedgerConnection, count: int) -> None:
    """Insert the rows of `many` as rows of a topic that was recreated."""
    query(
        ledger,
        "INSERT INTO ledger.replaced_predictions SELECT 'topic_1', number %% 3, number, 0, 'older ' || number, '4111', "
        "1, now(), 'm', 'c', number %% 20 = 0, 0.5, 'run', 'model', '1', 'batch', "
        "now() - interval '30 days' - number * interval '1 second', 0, number, json_build_object('trans_num', number), "
        "now() FROM generate_series(1, %s) AS number",
        count,
    )
    query(ledger, "ANALYZE ledger.replaced_predictions")


@pytest.mark.parametrize("older", [0, 60_000])
def test_frequent_queries_use_indexes_only(ledger: LedgerConnection, older: int) -> None:
    many(ledger, 60_000)
    replaced(ledger, older)
    # An empty table is read as it is.
    tables = ["predictions", "replaced_predictions"] if older else ["predictions"]
    one = "SELECT * FROM ledger.payments WHERE trans_num = %s"
    names = ["payment 7", "older 7"]
    known_payments = (
        (_KNOWN, names),
        (_BY_TRANS_NUM, names, 2),
        (_BY_SOURCE, names, ["topic_1"] * 2, [1, 1], [7, 7], [0, None]),
        (_CONFIRMED, names),
    )
    query(
        ledger,
        "INSERT INTO ledger.confirmations SELECT trans_num, true, 'ann', now(), 'test', NULL, source_topic, "
        "source_partition, source_offset, source_row FROM ledger.published_predictions WHERE source_offset < 20",
    )
    query(ledger, "ANALYZE ledger.confirmations")
    newest = query(ledger, _FRAUDS + " LIMIT 1")[0]
    content = newest[7], newest[2], newest[1], newest[3], newest[8]
    is_old = (_IS_OLD, newest[0], newest[6], *content, newest[6], *newest[9:])
    frauds = (_FRAUDS + " LIMIT %s", 100)
    for sql, *values in (frauds, is_old, *known_payments, (one, "older 7")):
        [(plan,)] = query(ledger, "EXPLAIN (FORMAT JSON) " + sql, *values)
        read = [node for node in nodes(plan[0]["Plan"]) if node.get("Relation Name") in tables]
        assert read
        assert "Seq Scan" not in {node["Node Type"] for node in read}, sql
    with VerdictWriter.opened(ledger) as confirmations:
        assert [one.trans_num for one in unreviewed(confirmations.connection, 2)] == ["payment 20", "payment 40"]


def test_trans_num_is_found_in_one_index_scan(ledger: LedgerConnection) -> None:
    many(ledger, 60_000)
    query(ledger, "UPDATE ledger.predictions SET trans_num = 'N/A' WHERE prediction")
    with VerdictWriter.opened(ledger) as confirmations:
        connection = confirmations.connection
        with connection, connection.cursor() as cursor:
            # Far more than it takes, and far less than to look for each among all others.
            cursor.execute("SET statement_timeout = '5s'")
        assert [one.trans_num for one in unreviewed(connection, 100)] == ["N/A"]


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for below in plan.get("Plans", ()) for node in nodes(below))]
