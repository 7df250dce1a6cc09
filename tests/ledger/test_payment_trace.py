"""`fraud trace` and the same query in docs/ledger.md, for payments that were scored, recorded and confirmed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from include.batch.outbox import record_committed_batches
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
    """Run `fraud …` with the connection to the ledger."""
    connection = {
        "conn_type": "postgres", "host": ledger.host, "port": ledger.port, "schema": ledger.database,
        "login": ledger.user, "password": ledger.password,
    }  # fmt: skip
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER_DB", json.dumps(connection))
    return lambda *arguments: CliRunner().invoke(app, [*map(str, arguments)])


@pytest.fixture
def scored_twice(scoring: Make, ledger: LedgerConnection, monkeypatch: pytest.MonkeyPatch) -> Scoring:
    """A payment that was scored as fraud by a requested model and mailed, then as genuine by a held model."""
    pipeline = scoring()
    send(pipeline, PAID.message)
    chosen = {"name": "fraud_scoring", "version": "3", "asked": "previous", "chosen_by": "run configuration"}
    with monkeypatch.context() as first:
        for name, value in {**chosen, "who": "bob", "reason": "version 4 misses\x1b[2J"}.items():
            first.setitem(MODEL, name, value)
        score(pipeline, ledger, fraud=True)
        for report in pipeline.outbox.pending_reports():
            pipeline.outbox.record_delivery(report, DELIVERY)
    set_offset(pipeline, 0)
    with monkeypatch.context() as second:
        for name, value in {"run_id": "b" * 32, "asked": "b" * 32, "chosen_by": "hold", "who": "carol"}.items():
            second.setitem(MODEL, name, value)
        score(pipeline, ledger, fraud=False)
    return pipeline


def score(pipeline: Scoring, ledger: LedgerConnection, *, fraud: bool) -> None:
    manifest = pipeline.drain()
    pipeline.predict_without_model(manifest, frauds=lambda offset: fraud)
    pipeline.publish(manifest)
    record_committed_batches(pipeline.cluster, pipeline.settings, pipeline.outbox)
    record(pipeline.cluster, pipeline.settings, ledger)


def batches(pipeline: Scoring) -> list[str]:
    return [name for hour in pipeline.storage.list("batches") for name in pipeline.storage.list(f"batches/{hour}")]


def test_trace_shows_models_runs_mails_and_verdicts(scored_twice: Scoring, ledger: LedgerConnection, fraud: Fraud):
    record_batches(scored_twice.storage, ledger)
    assert fraud("confirm", TRANS_NUM, "fraud", "--by", "dora").exit_code == 0
    assert fraud("confirm", TRANS_NUM, "genuine", "--by", "emil").exit_code == 0
    done = fraud("trace", TRANS_NUM)
    assert done.exit_code == 0
    text, at = done.stdout, r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC"
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
    for line, pattern in zip(text.splitlines(), lines, strict=True):
        assert re.fullmatch(pattern, line), (pattern, line)
    assert str(CARD) not in text
    assert "\x1b" not in text


def test_json_has_the_same_content(scored_twice: Scoring, ledger: LedgerConnection, fraud: Fraud):
    record_batches(scored_twice.storage, ledger)
    document = json.loads(fraud("trace", TRANS_NUM, "--json").stdout)
    (paid,) = document["payments"]
    assert (paid["source"], paid["row"]) == (f"{scored_twice.settings.input_topic}/0/0", 0)
    assert (paid["amount"], paid["card"]) == ("950.75", SHOWN)
    newest, replaced = paid["predictions"]
    assert (newest["fraud"], newest["mail"], newest["replaced_at"]) == (False, None, None)
    assert newest["choice"] == {"asked": "b" * 32, "by": "hold", "whom": "carol", "reason": None}
    assert replaced["mail"]["recipients"] == ["analyst@bank.test"]
    assert replaced["run"] == {"run_id": "a run", "url": "http://airflow/run"}
    assert {newest["batch_id"], replaced["batch_id"]} == set(batches(scored_twice))
    assert document["verdicts"] == []


def test_trace_without_batch_record_shows_the_predictions(scored_twice: Scoring, fraud: Fraud):
    text = fraud("trace", TRANS_NUM).stdout
    assert text.count("not known yet: the record of this batch is not in the ledger yet") == 5
    assert text.count("MLflow run") == 2
    assert "confirmed   not yet: no verdict is recorded" in text


def test_pending_report_is_shown(scoring: Make, ledger: LedgerConnection, fraud: Fraud):
    pipeline = scoring()
    send(pipeline, PAID.message)
    score(pipeline, ledger, fraud=True)
    record_batches(pipeline.storage, ledger)
    assert "notified  no one yet: the report is pending" in fraud("trace", TRANS_NUM).stdout


def test_all_payments_with_the_trans_num_are_shown(ledger: LedgerConnection, fraud: Fraud):
    add_predictions(ledger, PAID, hour=1)
    add_predictions(ledger, payment(1.5, trans_num=TRANS_NUM, cc_num="no card", merchant=None), hour=2)
    add_predictions(ledger, payment(2.5, trans_num="another"))
    text = fraud("trace", TRANS_NUM).stdout
    assert f"trans_num {TRANS_NUM}: 2 payments have it" in text
    places = ["topic_1/0/1 row 0", "topic_1/0/0 row 0"]
    assert re.findall(r"payment +(\S+ row \d)", text) == places
    assert "1.5 to an unnamed merchant (home)" in text
    assert re.findall(r"card +(.*)", text) == ["****", SHOWN]


def test_card_numbers_are_shown_if_masking_is_off(
    ledger: LedgerConnection, fraud: Fraud, monkeypatch: pytest.MonkeyPatch
):
    add_predictions(ledger, PAID)
    monkeypatch.setenv("FRAUD_MASK_CARDS", "false")
    assert str(CARD) in fraud("trace", TRANS_NUM).stdout
    assert str(CARD) in fraud("trace", TRANS_NUM, "--json").stdout


def test_altered_rows_are_shown_as_altered(scored_twice: Scoring, ledger: LedgerConnection, fraud: Fraud):
    query(ledger, "UPDATE ledger.predictions SET prediction = true")
    text = fraud("trace", TRANS_NUM).stdout
    again = "replaced on … by ledger because it was scored again"
    assert titles(text) == ["newest prediction", f"altered {ALTERED_BY}", again]
    query(ledger, "UPDATE ledger.recorded_offsets SET next_offset = (SELECT output_offset FROM ledger.predictions)")
    record(scored_twice.cluster, scored_twice.settings, ledger)
    text = fraud("trace", TRANS_NUM).stdout
    again = "replaced on … by ledger because it was scored again"
    assert titles(text) == ["newest prediction", f"altered {ALTERED_BY}", f"altered {ALTERED_BY}", again]
    assert re.findall(r"^  (no fraud|FRAUD)", text, re.MULTILINE) == ["no fraud", "FRAUD", "no fraud", "FRAUD"]


def test_payment_replaced_by_another_is_shown_as_replaced(ledger: LedgerConnection, fraud: Fraud):
    add_predictions(ledger, PAID)
    make_topic_again(ledger)
    text = fraud("trace", TRANS_NUM).stdout
    assert titles(text) == ["replaced on … by ledger because another payment took its place: the topic was recreated"]


ALTERED_BY = "on … by ledger without being scored again; until then the row said"


def titles(text: str) -> list[str]:
    """Return the headings above predictions, without times."""
    return re.findall(r"^  (.*):$", re.sub(r"20\S+ \S+ UTC", "…", text), re.MULTILINE)


def test_only_the_newest_of_thousands_are_shown(ledger: LedgerConnection, fraud: Fraud):
    add_predictions(ledger, payment(1.5, trans_num="0"))
    for sql in (
        "INSERT INTO ledger.predictions SELECT (moved).* FROM (SELECT jsonb_populate_record(known, jsonb_build_object("
        "'source_offset', number, 'scored_at', scored_at + number * interval '1 second')) AS moved "
        "FROM ledger.predictions AS known, generate_series(1, 4999) AS number) AS made",
        "ANALYZE ledger.predictions",
    ):
        query(ledger, sql)
    text = fraud("trace", "0").stdout
    assert text.startswith("trans_num 0: 5,000 payments have it, these are the newest 20\n")
    assert re.findall(r"^payment +topic_1/0/(\d+)", text, re.MULTILINE) == [str(4999 - at) for at in range(20)]
    assert "\n4,980 older payments have it as well and are not shown\n" in text
    assert json.loads(fraud("trace", "0", "--json").stdout)["more"] == 4980


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_unknown_trans_num_error_says_where_else_to_look(
    ledger: LedgerConnection, fraud: Fraud, arguments: tuple[str, ...]
):
    done = fraud("trace", "nobody's", *arguments)
    assert (done.exit_code, done.stdout) == (1, "")
    assert f'the ledger at {ledger} has no payment with trans_num "nobody\'s"' in done.stderr
    for place in ("`fraud ledger show`", "topic_1_dead_letters", "topic_2_dead_letters"):
        assert place in done.stderr


def test_ledger_without_tables_exits_with_2(ledger: LedgerConnection, fraud: Fraud):
    query(ledger, "DROP SCHEMA ledger CASCADE")
    done = fraud("trace", "nobody's")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("fraud trace: the ledger has no tables yet")


def test_documented_query_returns_the_same_as_the_command(scored_twice: Scoring, ledger: LedgerConnection):
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
        assert {prediction.batch_id, prediction.model_run_id, prediction.scored_at} < set(map(to_hashable, row))


def to_hashable(cell: Any) -> Any:
    return str(cell) if isinstance(cell, list) else cell


def test_query_uses_the_index_on_trans_num(ledger: LedgerConnection):
    add_predictions(ledger, *(payment(1.5) for _ in range(30)))
    plan = "\n".join(str(line) for (line,) in explain_query(ledger))
    assert plan.count("predictions_trans_num") == 2


def explain_query(ledger: LedgerConnection) -> list[tuple[Any, ...]]:
    sql = QUERY.replace("%(trans_num)s", "%s")
    return query(ledger, f"SET enable_seqscan = off; EXPLAIN {sql}", TRANS_NUM)
