"""The last test of all: no secret and no card number of the whole test run is left anywhere but where it belongs."""

from __future__ import annotations

import json

import pytest

from tests.support import kafka_log
from tests.support.leaks import Leaks
from tests.support.live_stack import LiveStack
from tests.support.secure_stack import SecureStack

pytestmark = pytest.mark.last


def secrets(stack: LiveStack) -> set[str]:
    return set(json.loads((stack.home / "secrets.json").read_text()).values())


def cards(stack: LiveStack) -> set[str]:
    """Of every payment that was sent to the product's own topic."""
    found = set()
    for message in kafka_log.read_all({**stack.kafka, "group.id": "fraud_scoring"}, "topic_1"):
        try:
            payments = json.loads(message.value() or b"")
            place = payments["columns"].index("cc_num")
            found |= {str(row[place]) for row in payments["data"]}
        except (ValueError, TypeError, KeyError, LookupError):
            continue
    return {card for card in found if len(card) >= 12}


def nothing_is_left(stack: LiveStack) -> None:
    looked_for = {"secrets": secrets(stack), "cards": cards(stack)}
    if not looked_for["cards"]:
        pytest.skip("of the tests that send payments, none was run")
    assert len(looked_for["secrets"]) > 8
    assert len(looked_for["cards"]) >= 4
    leaks = Leaks(stack, mail=True)
    assert {what: leaks.find(texts) for what, texts in looked_for.items()} == {"secrets": set(), "cards": set()}
    assert {"xcom", "rendered_task_instance_fields", "log"} <= leaks.looked_at
    assert [name for name in leaks.looked_at if "/maildir/" in name]
    assert [name for name in leaks.looked_at if name.endswith("logs/kafka.log")]


def test_nothing_is_left_of_secrets_and_card_numbers(stack: LiveStack) -> None:
    nothing_is_left(stack)


def test_nothing_is_left_where_all_is_encrypted(secure: SecureStack) -> None:
    nothing_is_left(secure.stack)


def test_a_planted_secret_is_found(secure: SecureStack) -> None:
    secret = secure.passwords["smtp"]
    log = secure.stack.home / "logs" / "planted.log"
    mail = secure.stack.maildir / "cur" / "planted"
    log.write_text(f"login with {secret}")
    mail.write_text(f"Subject: x\n\nthe password is {secret}\n")
    secure.api.request("POST", "variables", json={"key": "planted", "value": secret, "description": secret})
    try:
        # The Variable's value is encrypted, its description is not.
        assert Leaks(secure.stack, mail=True).find([secret]) >= {str(log), str(mail), "variable"}
    finally:
        log.unlink()
        mail.unlink()
        secure.api.request("DELETE", "variables/planted")
