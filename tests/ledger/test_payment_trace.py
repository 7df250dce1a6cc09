"""`fraud trace` and the query of its page: of payments that were scored, published, recorded and confirmed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from include.batch.outbox import note_what_is_committed
from include.cli.main import app
from include.ledger.connection import LedgerConnection
from include.ledger.payment_trace import QUERY, trace
from include.ledger.recorded_batches import record_batches
from include.ledger.recorder import record
from tests.conftest import ROOT
from tests.integration.test_protocol import send, set_offset
from tests.support.ledger import add_predictions, make_topic_again, query
from tests.support.payments import payment
from tests.support.scoring import DELIVERY, MODEL, Scoring

Make = Callable[..., Scoring]
Fraud = Callable[..., Result]
CARD, SHOWN = 4_111_111_111_111_111_111, "411111*********1111"
TRANS_NUM = "0b242abb623afc578575680df30655b9"
PAID = payment(950.75, trans_num=TRANS_NUM, cc_num=CARD)


@pytest.fixture
def fraud(ledger: LedgerConnection, monkeypatch: pytest.MonkeyPatch) -> Fraud:
    """`fraud …`, with the ledger's address."""
    connection = {
        "conn_type": "postgres", "host": ledger.host, "port": ledger.port, "schema": ledger.database,
        "login": ledger.user, "password": ledger.password,
    }  # fmt: skip
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER_DB", json.dumps(connection))
    return lambda *words: CliRunner().invoke(app, [*map(str, words)])


@pytest.fixture
def scored_twice(scoring: Make, ledger: LedgerConnection, monkeypatch: pytest.MonkeyPatch) -> Scoring:
    """One payment: fraud by the model of a run's configuration, which was mailed, then none by the one that is held."""
    here = scoring()
    send(here, PAID.message)
    chosen = {"name": "fraud_scoring", "version": "3", "asked": "previous", "chosen_by": "run configuration"}
    with monkeypatch.context() as first:
        for name, value in {**chosen, "who": "bob", "reason": "version 4 misses\x1b[2J"}.items():
            first.setitem(MODEL, name, value)
        score(here, ledger, fraud=True)
        for report in here.outbox.owed():
            here.outbox.record_delivery(report, DELIVERY)
    set_offset(here, 0)
    with monkeypatch.context() as second:
        for name, value in {"run_id": "b" * 32, "asked": "b" * 32, "chosen_by": "hold", "who": "carol"}.items():
            second.setitem(MODEL, name, value)
        score(here, ledger, fraud=False)
    return here


def score(here: Scoring, ledger: LedgerConnection, *, fraud: bool) -> None:
    manifest = here.drain()
    here.predict_without_model(manifest, frauds=lambda offset: fraud)
    here.publish(manifest)
    note_what_is_committed(here.cluster, here.settings, here.outbox)
    record(here.cluster, here.settings, ledger)


def batches(here: Scoring) -> list[str]:
    return [name for hour in here.storage.list("batches") for name in here.storage.list(f"batches/{hour}")]


def test_it_is_traced_to_its_models_runs_mails_and_verdicts(
    scored_twice: Scoring, ledger: LedgerConnection, fraud: Fraud
):
    record_batches(scored_twice.storage, ledger)
    assert fraud("confirm", TRANS_NUM, "fraud", "--by", "dora").exit_code == 0
    assert fraud("confirm", TRANS_NUM, "genuine", "--by", "emil").exit_code == 0
    done = fraud("trace", TRANS_NUM)
    assert done.exit_code == 0
    told, at = done.stdout, r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC"
    topic, batch = scored_twice.settings.input_topic, r"20\d{6}T\d{6}Z-[0-9a-f]{6}, offsets \[0, 1\) of its partition"
    lines = [
        f"trans_num {TRANS_NUM}: one payment",
        "",
        f"payment     {topic}/0/0 row 0",
        r"paid        2026-03-04 15:56:25 UTC: 950\.75 to fraud_McDermott, Osinski \(home\)",
        f"card        {re.escape(SHOWN)}",
        "",
        "  newest prediction:",
        r"  no fraud.*, scored on 2026-01-01 00:00:00 UTC",
        f"  model     MLflow run {'b' * 32}",
        f"  chosen    {'b' * 32}, held by carol",
        f"  batch     {batch}",
        "  Airflow   run a run: http://airflow/run",
        "  notified  no one, because it is not fraud",
        rf"  published output partition 0, offset \d+; recorded on {at}",
        "",
        f"  replaced on {at} by ledger because it was scored again:",
        r"  FRAUD \(probability 0\.9\), scored on 2026-01-01 00:00:00 UTC",
        f"  model     fraud_scoring version 3, MLflow run {'f' * 32}",
        r"  chosen    previous, requested in the run's configuration by bob; reason: version 4 misses.\[2J",
        f"  batch     {batch}",
        "  Airflow   run a run: http://airflow/run",
        "  notified  analyst@bank.test on 2026-01-01 00:05:00 UTC, Message-ID <a-report@test>",
        rf"  published output partition 0, offset 0; recorded on {at}",
        "",
        rf"confirmed   genuine, by emil on {at} \(.*\)",
        rf"before that fraud, by dora on {at} \(.*\)",
    ]
    for line, pattern in zip(told.splitlines(), lines, strict=True):
        assert re.fullmatch(pattern, line), (pattern, line)
    assert str(CARD) not in told
    assert "\x1b" not in told


def test_json_says_the_same(scored_twice: Scoring, ledger: LedgerConnection, fraud: Fraud):
    record_batches(scored_twice.storage, ledger)
    told = json.loads(fraud("trace", TRANS_NUM, "--json").stdout)
    (paid,) = told["payments"]
    assert (paid["source"], paid["row"]) == (f"{scored_twice.settings.input_topic}/0/0", 0)
    assert (paid["amount"], paid["card"]) == ("950.75", SHOWN)
    newest, replaced = paid["predictions"]
    assert (newest["fraud"], newest["mail"], newest["replaced_at"]) == (False, None, None)
    assert newest["choice"] == {"asked": "b" * 32, "by": "hold", "whom": "carol", "reason": None}
    assert replaced["mail"]["recipients"] == ["analyst@bank.test"]
    assert replaced["run"] == {"run_id": "a run", "url": "http://airflow/run"}
    assert {newest["batch_id"], replaced["batch_id"]} == set(batches(scored_twice))
    assert told["verdicts"] == []


def test_a_batch_whose_record_is_not_there_hides_nothing(scored_twice: Scoring, fraud: Fraud):
    told = fraud("trace", TRANS_NUM).stdout
    assert told.count("not known yet: the record of this batch is not in the ledger yet") == 5
    assert told.count("MLflow run") == 2
    assert "confirmed   not yet: no verdict is recorded" in told


def test_a_report_that_is_owed_is_told(scoring: Make, ledger: LedgerConnection, fraud: Fraud):
    here = scoring()
    send(here, PAID.message)
    score(here, ledger, fraud=True)
    record_batches(here.storage, ledger)
    assert "notified  no one yet: the report is pending" in fraud("trace", TRANS_NUM).stdout


def test_several_payments_may_bear_it(ledger: LedgerConnection, fraud: Fraud):
    add_predictions(ledger, PAID, hour=1)
    add_predictions(ledger, payment(1.5, trans_num=TRANS_NUM, cc_num="no card", merchant=None), hour=2)
    add_predictions(ledger, payment(2.5, trans_num="another"))
    told = fraud("trace", TRANS_NUM).stdout
    assert f"trans_num {TRANS_NUM}: 2 payments have it" in told
    places = ["topic_1/0/1 row 0", "topic_1/0/0 row 0"]
    assert re.findall(r"payment +(\S+ row \d)", told) == places
    assert "1.5 to an unnamed merchant (home)" in told
    assert re.findall(r"card +(.*)", told) == ["****", SHOWN]


def test_the_setting_shows_card_numbers(ledger: LedgerConnection, fraud: Fraud, monkeypatch: pytest.MonkeyPatch):
    add_predictions(ledger, PAID)
    monkeypatch.setenv("FRAUD_MASK_CARDS", "false")
    assert str(CARD) in fraud("trace", TRANS_NUM).stdout
    assert str(CARD) in fraud("trace", TRANS_NUM, "--json").stdout


def test_what_a_hand_altered_is_no_prediction_that_was_published(
    scored_twice: Scoring, ledger: LedgerConnection, fraud: Fraud
):
    query(ledger, "UPDATE ledger.predictions SET prediction = true")
    told = fraud("trace", TRANS_NUM).stdout
    again = "replaced on … by ledger because it was scored again"
    assert titles(told) == ["newest prediction", f"altered {LAST}", again]
    query(ledger, "UPDATE ledger.recorded_offsets SET next_offset = (SELECT output_offset FROM ledger.predictions)")
    record(scored_twice.cluster, scored_twice.settings, ledger)
    told = fraud("trace", TRANS_NUM).stdout
    again = "replaced on … by ledger because it was scored again"
    assert titles(told) == ["newest prediction", f"altered {LAST}", f"altered {LAST}", again]
    assert re.findall(r"^  (no fraud|FRAUD)", told, re.MULTILINE) == ["no fraud", "FRAUD", "no fraud", "FRAUD"]


def test_another_payment_may_have_taken_its_place(ledger: LedgerConnection, fraud: Fraud):
    add_predictions(ledger, PAID)
    make_topic_again(ledger)
    told = fraud("trace", TRANS_NUM).stdout
    assert titles(told) == ["replaced on … by ledger because another payment took its place: the topic was recreated"]


LAST = "on … by ledger without being scored again; until then the row said"


def titles(told: str) -> list[str]:
    """Above each prediction; times are left out."""
    return re.findall(r"^  (.*):$", re.sub(r"20\S+ \S+ UTC", "…", told), re.MULTILINE)


def test_of_thousands_that_bear_it_the_newest_are_shown(ledger: LedgerConnection, fraud: Fraud):
    add_predictions(ledger, payment(1.5, trans_num="0"))
    for sql in (
        "INSERT INTO ledger.predictions SELECT (moved).* FROM (SELECT jsonb_populate_record(known, jsonb_build_object("
        "'source_offset', number, 'scored_at', scored_at + number * interval '1 second')) AS moved "
        "FROM ledger.predictions AS known, generate_series(1, 4999) AS number) AS made",
        "ANALYZE ledger.predictions",
    ):
        query(ledger, sql)
    told = fraud("trace", "0").stdout
    assert told.startswith("trans_num 0: 5,000 payments have it, these are the newest 20\n")
    assert re.findall(r"^payment +topic_1/0/(\d+)", told, re.MULTILINE) == [str(4999 - at) for at in range(20)]
    assert "\n4,980 older payments have it as well and are not shown\n" in told
    assert json.loads(fraud("trace", "0", "--json").stdout)["more"] == 4980


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_one_that_is_not_there_is_told_with_where_else_to_look(
    ledger: LedgerConnection, fraud: Fraud, words: tuple[str, ...]
):
    done = fraud("trace", "nobody's", *words)
    assert (done.exit_code, done.stdout) == (1, "")
    assert f'the ledger at {ledger} has no payment with trans_num "nobody\'s"' in done.stderr
    for place in ("`fraud ledger show`", "topic_1_dead_letters", "topic_2_dead_letters"):
        assert place in done.stderr


def test_a_ledger_that_cannot_be_asked_is_another_matter(ledger: LedgerConnection, fraud: Fraud):
    query(ledger, "DROP SCHEMA ledger CASCADE")
    done = fraud("trace", "nobody's")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("fraud trace: the ledger has no tables yet")


def test_the_pages_query_gives_what_the_command_tells(scored_twice: Scoring, ledger: LedgerConnection):
    record_batches(scored_twice.storage, ledger)
    page = Path(ROOT, "docs", "ledger.md").read_text()
    (sql,) = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    assert sql.strip() == QUERY.strip().replace("%(trans_num)s", f"'{TRANS_NUM}'") + ";"
    rows = query(ledger, sql)
    found = trace(ledger, TRANS_NUM, mask=True)
    assert found is not None
    predictions: list[Any] = [one for paid in found.payments for one in paid.predictions]
    assert len(rows) == len(predictions) == 2
    for row, prediction in zip(rows, predictions, strict=True):
        assert {prediction.batch_id, prediction.model_run_id, prediction.scored_at} < set(map(hashable, row))


def hashable(cell: Any) -> Any:
    return str(cell) if isinstance(cell, list) else cell


def test_it_reads_few_rows_however_many_there_are(ledger: LedgerConnection):
    add_predictions(ledger, *(payment(1.5) for _ in range(30)))
    plan = "\n".join(str(line) for (line,) in explained(ledger))
    assert plan.count("predictions_trans_num") == 2


def explained(ledger: LedgerConnection) -> list[tuple[Any, ...]]:
    sql = QUERY.replace("%(trans_num)s", "%s")
    return query(ledger, f"SET enable_seqscan = off; EXPLAIN {sql}", TRANS_NUM)
