"""The product's settings: one frozen object, read from the environment when a task or command runs."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from include.errors import SettingError
from include.mail_addresses import parse_addresses

_COMES_IN_AGAIN = "the DAG would read its own output"
_DECADE_HOURS = 87_600


@dataclass(frozen=True)
class Settings:
    """Every field is one environment variable; `.env.example` and docs/configuration.md list them all."""

    input_topic: str = "topic_1"
    output_topic: str = "topic_2"
    dead_letter_topic: str = "topic_1_dead_letters"
    group: str = "fraud_scoring"
    # The output topic's own, of what stands there and is no prediction.
    output_dead_letter_topic: str = "topic_2_dead_letters"
    ledger_group: str = "fraud_ledger"
    confirmed_url: str = ""
    model: str = "latest"
    experiment: str | None = None
    max_payments: int = 200_000
    max_seconds: float = 60.0
    shards: int = 1
    staging_url: str = ""
    staging_hours: float = 72.0
    model_cache: Path = field(default_factory=Path)
    model_cache_gb: float = 10.0
    allow_pickles: bool = True
    # MLflow run ids whose models are loaded even if required packages are missing.
    unchecked_requirements: tuple[str, ...] = ()
    mask_cards: bool = True
    # Read when they are needed only: a slip in an address must not stop the scoring.
    recipients_text: str = ""
    operators_text: str = ""
    installation: str = ""
    late_minutes: float = 15.0
    reminder_hours: float = 6.0
    alarm_lag: int = 1_000_000
    alarm_age_minutes: float = 15.0
    dead_letter_share: float = 0.2
    dead_letter_least: int = 10
    log_days: float = 14.0
    history_days: float = 30.0
    # Of `fraud topics`, and of `record_hours`; a replication of 0 is the broker's own default.
    topic_partitions: int = 3
    topic_replication: int = 0
    topic_retention_hours: float = 168.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Raises SettingError, naming the variable, where a value cannot be used."""
        settings = cls._from(_Reader(environment))
        source, output = ("FRAUD_INPUT_TOPIC", settings.input_topic), ("FRAUD_OUTPUT_TOPIC", settings.output_topic)
        letters = "FRAUD_DEAD_LETTER_TOPIC", settings.dead_letter_topic
        refused = "FRAUD_OUTPUT_DEAD_LETTER_TOPIC", settings.output_dead_letter_topic
        groups = ("FRAUD_LEDGER_GROUP", settings.ledger_group), ("FRAUD_GROUP", settings.group)
        for (name, value), (other, taken), why in (
            (output, source, _COMES_IN_AGAIN),
            (letters, source, _COMES_IN_AGAIN),
            (refused, source, _COMES_IN_AGAIN),
            (refused, output, _COMES_IN_AGAIN),
            (letters, output, "readers of scored payments would also receive dead letters"),
            (*groups, "moving or deleting the offsets of one would change the other"),
        ):
            if value == taken:
                raise SettingError(f"{name} and {other} are both {value}: {why}; give another")
        return settings

    @classmethod
    def usable(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """For whatever tells that a setting cannot be used: the default stands in for it."""
        return cls._from(_Reader(environment, lenient=True))

    @property
    def recipients(self) -> tuple[str, ...]:
        return parse_addresses("EMAIL_RECIPIENT", self.recipients_text)

    @property
    def operators(self) -> tuple[str, ...]:
        return parse_addresses("FRAUD_OPERATORS_EMAIL", self.operators_text)

    @property
    def record_hours(self) -> float:
        """How long a batch's record waits for the ledger: as long as its predictions do, on the output topic."""
        return max(self.staging_hours, self.topic_retention_hours)

    @classmethod
    def _from(cls, read: _Reader) -> Settings:
        home = read.folder("AIRFLOW_HOME", "~/airflow").absolute() / "fraud"
        output_topic = read.text("FRAUD_OUTPUT_TOPIC", cls.output_topic)
        return cls(
            input_topic=read.text("FRAUD_INPUT_TOPIC", cls.input_topic),
            output_topic=output_topic,
            dead_letter_topic=read.text("FRAUD_DEAD_LETTER_TOPIC", cls.dead_letter_topic),
            group=read.text("FRAUD_GROUP", cls.group),
            output_dead_letter_topic=read.text("FRAUD_OUTPUT_DEAD_LETTER_TOPIC", f"{output_topic}_dead_letters"),
            ledger_group=read.text("FRAUD_LEDGER_GROUP", cls.ledger_group),
            confirmed_url=read.text("FRAUD_CONFIRMED_URL", ""),
            model=read.text("FRAUD_MODEL", cls.model),
            experiment=read.text("FRAUD_EXPERIMENT", "") or None,
            max_payments=int(read.number("FRAUD_MAX_PAYMENTS", cls.max_payments, least=1, most=10_000_000)),
            # Twice in a task's ten minutes at most: what was read or scored in that time is still to be staged.
            max_seconds=read.number("FRAUD_MAX_SECONDS", cls.max_seconds, least=1, most=300),
            # Airflow maps a task over 1,024 values at most.
            shards=int(read.number("FRAUD_SHARDS", cls.shards, least=1, most=1_000)),
            staging_url=read.text("FRAUD_STAGING_URL", str(home / "staging")),
            staging_hours=read.number("FRAUD_STAGING_HOURS", cls.staging_hours, least=1, most=_DECADE_HOURS),
            model_cache=read.folder("FRAUD_MODEL_CACHE", str(home / "models")),
            model_cache_gb=read.number("FRAUD_MODEL_CACHE_GB", cls.model_cache_gb, least=0.1, most=1_000_000),
            allow_pickles=read.flag("FRAUD_ALLOW_PICKLES", cls.allow_pickles),
            unchecked_requirements=read.run_ids("FRAUD_UNCHECKED_REQUIREMENTS"),
            mask_cards=read.flag("FRAUD_MASK_CARDS", cls.mask_cards),
            recipients_text=read.text("EMAIL_RECIPIENT", ""),
            operators_text=read.text("FRAUD_OPERATORS_EMAIL", ""),
            installation=read.text("FRAUD_INSTALLATION", ""),
            late_minutes=read.late_minutes(),
            reminder_hours=read.number("FRAUD_REMINDER_HOURS", cls.reminder_hours, least=0, most=8_760),
            alarm_lag=int(read.number("FRAUD_ALARM_LAG", cls.alarm_lag, least=1, most=1_000_000_000_000)),
            alarm_age_minutes=read.number("FRAUD_ALARM_AGE_MINUTES", cls.alarm_age_minutes, least=1, most=525_600),
            dead_letter_share=read.number("FRAUD_DEAD_LETTER_SHARE", cls.dead_letter_share, least=0.001, most=1),
            dead_letter_least=int(read.number("FRAUD_DEAD_LETTER_LEAST", cls.dead_letter_least, least=1, most=1e9)),
            # A day at least, and a century at most: timestamps begin somewhere.
            log_days=read.number("FRAUD_LOG_DAYS", cls.log_days, least=1, most=36_500),
            history_days=read.number("FRAUD_HISTORY_DAYS", cls.history_days, least=1, most=36_500),
            topic_partitions=int(read.number("FRAUD_TOPIC_PARTITIONS", cls.topic_partitions, least=1, most=10_000)),
            topic_replication=int(read.number("FRAUD_TOPIC_REPLICATION", cls.topic_replication, least=0, most=1_000)),
            topic_retention_hours=read.number(
                "FRAUD_TOPIC_RETENTION_HOURS", cls.topic_retention_hours, least=1, most=_DECADE_HOURS
            ),
        )


def late_after(environment: Mapping[str, str] = os.environ) -> timedelta:
    """For the DAG file: a setting that cannot be used fails the tasks by name, and must not make the DAG disappear."""
    read = _Reader(environment, lenient=True)
    return timedelta(minutes=read.late_minutes())


def login(environment: Mapping[str, str], user: str, password: str) -> tuple[str, str] | tuple[None, None]:
    """Two variables that need each other. A password may begin or end with spaces."""
    given = {name: environment.get(name, "") for name in (user, password)}
    there = [name for name, value in given.items() if value.strip()]
    if len(there) == 1:
        missing = password if there[0] == user else user
        raise SettingError(f"{missing} is missing: {there[0]} is set")
    return (given[user].strip(), given[password]) if there else (None, None)


class _Reader:
    """An empty variable counts as unset: docker compose passes every variable it knows, set or not.

    A lenient one takes a value that cannot be used for unset as well.
    """

    def __init__(self, environment: Mapping[str, str], *, lenient: bool = False) -> None:
        self._environment = environment
        self._lenient = lenient

    def text(self, name: str, default: str) -> str:
        return self._environment.get(name, "").strip() or default

    def number(self, name: str, default: float, *, least: float, most: float) -> float:
        """Every number has both bounds: a value that is too large overflows a date, or silences what it controls."""
        text = self.text(name, str(default))
        try:
            number = float(text)
        except ValueError:
            number = float("nan")
        if least <= number <= most:
            return number
        self._refuse(f"{name}={text!r}: give a number of at least {least:.15g} and at most {most:.15g}")
        return default

    def late_minutes(self) -> float:
        """At most a week: Airflow ends a run a quarter of an hour later."""
        return self.number("FRAUD_LATE_MINUTES", Settings.late_minutes, least=1, most=10_080)

    def flag(self, name: str, default: bool) -> bool:
        text = self.text(name, str(default)).lower()
        if text in {"true", "1", "yes", "on"}:
            return True
        if text in {"false", "0", "no", "off"}:
            return False
        self._refuse(f"{name}={text!r}: give true or false")
        return default

    def run_ids(self, name: str) -> tuple[str, ...]:
        ids = tuple(re.split(r"[\s,;]+", self.text(name, "").strip(" ,;")))
        wrong = [run_id for run_id in ids if not re.fullmatch("[0-9a-f]{32}", run_id)]
        if wrong == [""]:
            return ()
        if wrong:
            self._refuse(f"{name}={wrong[0]!r}: give MLflow run ids (32 hexadecimal digits), separated by commas")
        return tuple(run_id for run_id in ids if run_id not in wrong)

    def folder(self, name: str, default: str) -> Path:
        text = self.text(name, default)
        try:
            return Path(text).expanduser()
        except RuntimeError:
            self._refuse(f"{name}={text!r}: no such home folder is known, give a whole path")
            return Path(default).expanduser()

    def _refuse(self, message: str) -> None:
        if not self._lenient:
            raise SettingError(message)
