"""What the product may do on Kafka: the documented rights are enough, and each is missed where it lacks."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, ResourcePatternType, ResourceType
from confluent_kafka.cimpl import NewTopic

from dev.stack.kafka import USER, allow
from dev.stack.part import BIN
from include.check.check import Found, run
from include.check.kafka import check_kafka
from include.settings import Settings
from tests.support.secure_stack import SecureStack
from tests.support.waiting import wait_until


@pytest.fixture
def own(secure: SecureStack) -> Iterator[Settings]:
    """Topics and a group on which the user has no right yet."""
    name = f"rights_{uuid.uuid4().hex[:8]}"
    made = dataclasses.replace(
        secure.settings,
        input_topic=name, output_topic=f"{name}_scored", dead_letter_topic=f"{name}_dead", group=f"{name}_group",
    )  # fmt: skip
    names = [made.input_topic, made.output_topic, made.dead_letter_topic]
    for future in secure.admin.create_topics([NewTopic(name, 1, 1) for name in names]).values():
        future.result(30)
    yield made
    for future in secure.admin.delete_topics(names).values():
        future.result(30)


def check(secure: SecureStack, settings: Settings, **client: Any) -> dict[str, Found]:
    given = {name: value for name, value in (secure.kafka | client).items() if value is not None}
    return {one.name: one for one in run([("tried", lambda: check_kafka(given, settings))])}


def wrong(found: dict[str, Found]) -> list[str]:
    return [name for name, one in found.items() if not one.ok]


def test_the_documented_rights_are_enough(secure: SecureStack, own: Settings) -> None:
    assert len(wrong(check(secure, own))) == 5
    allow(secure.admin, USER, own)
    # The broker hears of rights a moment after the controller has them.
    wait_until(lambda: not wrong(check(secure, own)), f"not enough: {check(secure, own)}", 30)


LACKING = {
    "topic": (ResourceType.TOPIC, "output_topic", AclOperation.WRITE, "topic {output_topic}"),
    "input": (ResourceType.TOPIC, "input_topic", AclOperation.READ, "topic {input_topic}"),
    "group": (ResourceType.GROUP, "group", AclOperation.READ, "group {group}"),
    "ids": (ResourceType.TRANSACTIONAL_ID, "group", AclOperation.WRITE, "transactional ids {group}/…"),
}


@pytest.mark.parametrize("which", LACKING)
def test_a_right_that_lacks_is_named(secure: SecureStack, own: Settings, which: str) -> None:
    allow(secure.admin, USER, own)
    kind, place, operation, told = LACKING[which]
    name = getattr(own, place) + ("/" if which == "ids" else "")
    pattern = ResourcePatternType.PREFIXED if which == "ids" else ResourcePatternType.LITERAL
    deny = AclBinding(kind, name, pattern, f"User:{USER}", "*", operation, AclPermissionType.DENY)
    (made,) = secure.admin.create_acls([deny]).values()
    made.result(30)
    told = told.format(**dataclasses.asdict(own))
    wait_until(lambda: wrong(check(secure, own)) == [told], f"{told} is not told, or not alone", 30)


REFUSED: dict[str, tuple[dict[str, Any], Sequence[str]]] = {
    "a wrong password": (
        {"sasl.password": "wr0ng"}, ("kafka_default is refused as fraud", "check the user name and password"),
    ),
    "a certificate that is not trusted": (
        {"ssl.ca.location": None}, ("kafka_default is refused", "certificate verify failed", "check the certificates"),
    ),
    "no encryption": (
        {"security.protocol": "PLAINTEXT"}, ("are address and security.protocol right?",),
    ),
    "a setting that does not exist": ({"ssl.ca.lcation": "x"}, ('No such configuration property: "ssl.ca.lcation"',)),
}  # fmt: skip


@pytest.mark.parametrize("which", REFUSED)
def test_a_connection_that_is_refused(secure: SecureStack, which: str) -> None:
    changes, words = REFUSED[which]
    results = check(secure, secure.settings, **changes)
    assert list(results) == ["tried"]
    for word in words:
        assert word in results["tried"].text
    assert "wr0ng" not in results["tried"].text


def test_the_command_finds_the_connections_in_airflows_database(secure: SecureStack) -> None:
    environment = {name: value for name, value in secure.stack.env.items() if not name.startswith("AIRFLOW_CONN_")}
    done = subprocess.run(
        [BIN / "fraud", "check"],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "all is well"
    assert "smtp_default" in done.stdout
    assert not [name for name, secret in secure.passwords.items() if secret in done.stdout + done.stderr]
