"""The stack with encryption and logins, as its tests use it: with connections that they can spoil."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from dev.stack.home import Home
from dev.stack.kafka import ADMIN, Kafka
from include.kafka.access import Admin
from include.settings import Settings
from include.verify.verdict import Verdict
from include.verify.verify import verify
from include.verify.window import Bounds
from tests.support.live_stack import LiveStack
from tests.support.pipeline import Pipeline
from tests.support.two_models import TwoModels


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
    def admin(self) -> Admin:
        home = Home(self.stack.home)
        home.create([])
        return Admin({**Kafka.client(home, ADMIN)})

    def connection(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.stack.env[f"AIRFLOW_CONN_{name.upper()}"])
        return found

    @contextmanager
    def spoiled(self, name: str, extra: Mapping[str, Any] | None = None, **changes: Any) -> Iterator[None]:
        """Airflow's connection with other values; None in `extra` takes one away."""
        right = self.connection(name)
        values = {key: value for key, value in (right["extra"] | dict(extra or {})).items() if value is not None}
        self.api.set_connection(name, right | changes | {"extra": values})
        try:
            yield
        finally:
            self.api.set_connection(name, right)

    def verify(self) -> Verdict:
        whole = Bounds.parse("--from", [])
        return verify(self.kafka, self.settings, start=whole, end=whole, show=5, say=lambda line: None)
