"""The search at the end of each stack's life (tests/support/leaks.py) finds what is planted."""

from __future__ import annotations

from tests.support.leaks import Leaks, cards, secrets
from tests.support.payments import FRAUD_FOR_LATEST, GENUINE, payments
from tests.support.secure_stack import SecureStack


def test_a_planted_secret_or_card_is_found(secure: SecureStack) -> None:
    _, sent = secure.score(payments(GENUINE, FRAUD_FOR_LATEST))
    card = str(sent[0].payment.values["cc_num"])
    assert card in cards(secure.stack)
    for planted in (secure.passwords["smtp"], card, secure.stack.env["AIRFLOW__CORE__FERNET_KEY"]):
        plant(secure, planted)


def plant(secure: SecureStack, text: str) -> None:
    log = secure.stack.home / "logs" / "planted.log"
    mail = secure.stack.maildir / "cur" / "planted"
    log.write_text(f"login with {text}")
    mail.write_text(f"Subject: x\n\nthe password is {text}\n")
    with secure.stack.database("airflow") as connection, connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO log (dttm, event, extra) VALUES (now(), 'planted', %s)", [text])
    try:
        leaks = Leaks(secure.stack, mail=True)
        assert leaks.find(secrets(secure.stack), cards(secure.stack)) >= {str(log), str(mail), "log"}
        assert {"xcom", "rendered_task_instance_fields", "log"} <= leaks.looked_at
    finally:
        log.unlink()
        mail.unlink()
        with secure.stack.database("airflow") as connection, connection, connection.cursor() as cursor:
            cursor.execute("DELETE FROM log WHERE event = 'planted'")
