"""A stack with encryption and logins, whose connections a test can change."""

from __future__ import annotations

import json
import secrets
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)

from dev.stack.home import StackHome
from dev.stack.kafka import ADMIN, Kafka
from include.kafka.admin import Admin
from include.kafka.cluster import Cluster
from include.settings import Settings
from include.verify.findings import VerifyReport
from include.verify.verification import verify
from include.verify.window import Bounds
from tests.support.live_stack import LiveStack
from tests.support.pipeline import Pipeline
from tests.support.two_models import TwoModels
from tests.support.waiting import wait_until


@dataclass(frozen=True)
class Right:
    operation: AclOperation
    kind: ResourceType
    name: str
    pattern: ResourcePatternType = ResourcePatternType.LITERAL

    def of(self, user: str) -> AclBinding:
        return AclBinding(
            self.kind, self.name, self.pattern, f"User:{user}", "*", self.operation, AclPermissionType.ALLOW
        )


class SecureStack(Pipeline):
    def __init__(self, live: LiveStack, models: TwoModels) -> None:
        super().__init__(live, models)
        self.kafka = live.kafka | {"log_level": 0}
        self.settings = Settings.from_environment(live.env)

    @cached_property
    def passwords(self) -> dict[str, str]:
        kept: dict[str, str] = json.loads((self.stack.home / "secrets.json").read_text())
        return kept

    @cached_property
    def superuser(self) -> dict[str, Any]:
        """Return the client configuration of the superuser."""
        home = StackHome(self.stack.home)
        home.create([])
        return {**Kafka.client(home, ADMIN)}

    @cached_property
    def admin(self) -> Admin:
        return Admin(self.superuser)

    @contextmanager
    def user(self, rights: Iterable[Right]) -> Iterator[dict[str, Any]]:
        """Create a Kafka user with these rights only, and yield its client configuration."""
        name, password = f"user_{uuid.uuid4().hex[:8]}", secrets.token_hex(16)
        # The broker learns of these in their order: who is told that this topic does not exist has all the others.
        last = Right(AclOperation.DESCRIBE, ResourceType.TOPIC, name)
        login = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        self._alter(UserScramCredentialUpsertion(name, login, password.encode()))
        for right in (*rights, last):
            (made,) = self.admin.create_acls([right.of(name)]).values()
            made.result(30)
        client = self.kafka | {
            "sasl.mechanism": "SCRAM-SHA-512", "sasl.username": name, "sasl.password": password,
        }  # fmt: skip

        def is_known() -> bool:
            try:
                seen = Admin(client).list_topics(name, timeout=5).topics[name].error
            except KafkaException:
                return False
            return seen is not None and seen.code() == KafkaError.UNKNOWN_TOPIC_OR_PART

        try:
            wait_until(is_known, f"the broker does not know {name}", 30)
            yield client
        finally:
            own = AclBindingFilter(
                ResourceType.ANY, None, ResourcePatternType.ANY, f"User:{name}", None, AclOperation.ANY,
                AclPermissionType.ANY,
            )  # fmt: skip
            (removed,) = self.admin.delete_acls([own]).values()
            removed.result(30)
            self._alter(UserScramCredentialDeletion(name, ScramMechanism.SCRAM_SHA_512))

    def _alter(self, change: Any) -> None:
        (altered,) = self.admin.alter_user_scram_credentials([change]).values()
        altered.result(30)

    def connection(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.stack.env[f"AIRFLOW_CONN_{name.upper()}"])
        return found

    @contextmanager
    def spoiled(self, name: str, extra: Mapping[str, Any] | None = None, **changes: Any) -> Iterator[None]:
        """Change values of an Airflow connection; None in `extra` removes one."""
        right = self.connection(name)
        values = {
            key: value for key, value in (right.get("extra", {}) | dict(extra or {})).items() if value is not None
        }
        self.api.set_connection(name, right | changes | {"extra": values})
        try:
            yield
        finally:
            self.api.set_connection(name, right)

    def verify(self) -> VerifyReport:
        whole = Bounds.parse("--from", [])
        return verify(Cluster(self.kafka), self.settings, start=whole, end=whole, show=5)
