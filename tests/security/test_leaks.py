"""The search for leaks at the end of a stack (tests/support/leaks.py) finds planted values."""

from __future__ import annotations

from tests.support.leaks import Leaks, cards, secrets
from tests.support.ledger import query
from tests.support.payments import FRAUD_FOR_LATEST, GENUINE, payments
from tests.support.secure_stack import SecureStack


def test_planted_secret_or_card_is_found(secure: SecureStack) -> None:
    _, sent = secure.score(payments(GENUINE, FRAUD_FOR_LATEST))
    card = str(sent[0].payment.values["cc_num"])
    assert card in cards(secure.stack)
    of_ledger, fernet = secure.passwords["ledger_user"], secure.stack.env["AIRFLOW__CORE__FERNET_KEY"]
    for planted in (secure.passwords["smtp"], of_ledger, card, fernet):
        plant(secure, planted)


def plant(secure: SecureStack, text: str) -> None:
    """Plant a value everywhere except in the ledger, which may hold cards."""
    log = secure.stack.home / "logs" / "planted.log"
    mail = secure.stack.maildir / "cur" / "planted"
    log.write_text(f"login with {text}")
    mail.write_text(f"Subject: x\n\nthe password is {text}\n")
    with secure.stack.database("airflow") as connection, connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO log (dttm, event, extra) VALUES (now(), 'planted', %s)", [text])
    with secure.stack.database("mlflow") as connection, connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO experiments (name) VALUES (%s)", [f"planted {text}"])
    query(secure.stack.ledger, "INSERT INTO ledger.exports (file) VALUES (%s)", f"planted {text}")
    try:
        leaks = Leaks(secure.stack, mail=True)
        numbers = cards(secure.stack)
        found = leaks.find(secrets(secure.stack), numbers)
        assert found >= {str(log), str(mail), "airflow.log", "mlflow.experiments"}
        assert leaks.find_in_ledger(secrets(secure.stack)) == (set() if text in numbers else {"ledger.exports"})
        assert {"airflow.xcom", "airflow.rendered_task_instance_fields", "mlflow.runs"} <= leaks.looked_at
        assert str(secure.stack.home / "logs" / "ledger.log") in leaks.looked_at
    finally:
        query(secure.stack.ledger, "DELETE FROM ledger.exports WHERE file LIKE 'planted %%'")
        with secure.stack.database("mlflow") as connection, connection, connection.cursor() as cursor:
            cursor.execute("DELETE FROM experiments WHERE name LIKE 'planted %'")
        log.unlink()
        mail.unlink()
        with secure.stack.database("airflow") as connection, connection, connection.cursor() as cursor:
            cursor.execute("DELETE FROM log WHERE event = 'planted'")
