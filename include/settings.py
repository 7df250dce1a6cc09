"""The product's settings: one frozen object, read from the environment when a task or command runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from include.errors import SettingError


@dataclass(frozen=True)
class Settings:
    """Every field is one environment variable; `.env.example` and docs/configuration.md list them all."""

    input_topic: str = "topic_1"
    output_topic: str = "topic_2"
    dead_letter_topic: str = "topic_1_dead_letters"
    group: str = "fraud_scoring"
    model: str = "latest"
    experiment: str | None = None
    max_payments: int = 200_000
    staging_url: str = ""
    staging_hours: float = 72.0
    model_cache: Path = field(default_factory=Path)
    model_cache_gb: float = 10.0
    mask_cards: bool = True
    recipients: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()
    late_minutes: float = 15.0
    reminder_hours: float = 6.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Raises SettingError, naming the variable, where a value cannot be used."""
        home = Path(environment.get("AIRFLOW_HOME") or "~/airflow").expanduser().absolute() / "fraud"
        read = _Reader(environment)
        return cls(
            input_topic=read.text("FRAUD_INPUT_TOPIC", cls.input_topic),
            output_topic=read.text("FRAUD_OUTPUT_TOPIC", cls.output_topic),
            dead_letter_topic=read.text("FRAUD_DEAD_LETTER_TOPIC", cls.dead_letter_topic),
            group=read.text("FRAUD_GROUP", cls.group),
            model=read.text("FRAUD_MODEL", cls.model),
            experiment=read.text("FRAUD_EXPERIMENT", "") or None,
            max_payments=int(read.number("FRAUD_MAX_PAYMENTS", cls.max_payments, least=1)),
            staging_url=read.text("FRAUD_STAGING_URL", str(home / "staging")),
            staging_hours=read.number("FRAUD_STAGING_HOURS", cls.staging_hours, least=1),
            model_cache=Path(read.text("FRAUD_MODEL_CACHE", str(home / "models"))).expanduser(),
            model_cache_gb=read.number("FRAUD_MODEL_CACHE_GB", cls.model_cache_gb, least=0.1),
            mask_cards=read.flag("FRAUD_MASK_CARDS", cls.mask_cards),
            recipients=read.addresses("EMAIL_RECIPIENT"),
            operators=read.addresses("FRAUD_OPERATORS_EMAIL"),
            late_minutes=read.number("FRAUD_LATE_MINUTES", cls.late_minutes, least=1),
            reminder_hours=read.number("FRAUD_REMINDER_HOURS", cls.reminder_hours, least=0),
        )


def late_after(environment: Mapping[str, str] = os.environ) -> timedelta:
    """For the DAG file: a setting that cannot be used fails the tasks by name, and must not make the DAG disappear."""
    try:
        return timedelta(minutes=_Reader(environment).number("FRAUD_LATE_MINUTES", Settings.late_minutes, least=1))
    except SettingError:
        return timedelta(minutes=Settings.late_minutes)


class _Reader:
    """An empty variable counts as unset: docker compose passes every variable it knows, set or not."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def text(self, name: str, default: str) -> str:
        return self._environment.get(name, "").strip() or default

    def number(self, name: str, default: float, *, least: float) -> float:
        text = self.text(name, str(default))
        try:
            number = float(text)
        except ValueError:
            number = float("nan")
        if not least <= number < float("inf"):
            raise SettingError(f"{name}={text!r}: give a number of at least {least:g}")
        return number

    def flag(self, name: str, default: bool) -> bool:
        text = self.text(name, str(default)).lower()
        if text in {"true", "1", "yes", "on"}:
            return True
        if text in {"false", "0", "no", "off"}:
            return False
        raise SettingError(f"{name}={text!r}: give true or false")

    def addresses(self, name: str) -> tuple[str, ...]:
        """One address or several, separated by commas, semicolons or spaces."""
        words = self.text(name, "").replace(",", " ").replace(";", " ").split()
        for word in words:
            if word.count("@") != 1 or word.startswith("@") or word.endswith("@"):
                raise SettingError(f"{name}: {word!r} is not a mail address")
        return tuple(words)
