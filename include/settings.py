"""The product's settings: one frozen object, read from the environment when a task or command runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from include.environment_settings import Folder, Number, RunIds, WholeNumber, setting
from include.errors import SettingError
from include.mail_addresses import parse_addresses
from include.topic_settings import TopicSettings


def _fraud_folder(values: dict[str, Any]) -> Path:
    home: Path = values["airflow_home"]
    return home.absolute() / "fraud"


class Settings(TopicSettings):
    """The value of each environment variable of the product.

    `Settings.from_environment()` reads them. `Settings(shards=2)` reads none: other fields have their defaults. Both
    check types and bounds. `.env.example` and docs/configuration.md are generated from the fields (`make settings`).
    """

    airflow_home: Folder = setting(
        "~/airflow",
        "Airflow's folder. The product's folders are in it by default.",
        allowed="an absolute path",
        variable="AIRFLOW_HOME",
    )

    # --- Runs
    max_payments: WholeNumber = setting(
        200_000,
        "Maximum number of offsets that a run reads from each partition. If payments remain, the next run starts at "
        "once.",
        bounds=(1, 10_000_000, "offsets"),
    )
    # A task has ten minutes. At 300 seconds, half of them are left to stage what was read or scored.
    max_seconds: Number = setting(
        60.0,
        "Maximum time that a run reads, and again the maximum time that it scores. If payments remain, the next run "
        "starts at once.",
        bounds=(1, 300, "seconds"),
    )
    # Airflow maps a task over at most 1,024 values.
    shards: WholeNumber = setting(
        1,
        "Number of parallel tasks over which a run spreads the partitions that have payments.",
        bounds=(1, 1_000, "shards"),
    )
    # --- Models
    model: str = setting(
        "latest",
        "Model that scores, unless the run or a hold names one: `latest`, `previous`, an MLflow run id, "
        "`runs:/<run id>/<name>`, `models:/name@alias`, `models:/name/version` or `models:/m-<id>`.",
    )
    experiment: str | None = setting(
        None,
        "MLflow experiment in which `latest` and `previous` search, and into which `fraud train` logs its runs.",
        default_text="all experiments",
        example="fraud_scoring",
    )
    model_cache: Folder = setting(
        lambda values: _fraud_folder(values) / "models",
        "Folder for downloaded models.",
        allowed="an absolute path",
        default_text="`$AIRFLOW_HOME/fraud/models`",
        example="/var/cache/fraud/models",
    )
    model_cache_gb: Number = setting(
        10.0,
        "Maximum size of that folder. Above it, the least recently used models are removed.",
        bounds=(0.1, 1_000_000, "GB"),
    )
    allow_pickles: bool = setting(
        True,
        "`false` refuses each model that could run code of its own (a pickle, a pyfunc model, code stored with the "
        "model): see [models are code](security.md#models-are-code).",
    )
    unchecked_requirements: RunIds = setting(
        (),
        "MLflow run ids, separated by commas, of models that are loaded even if packages that they require are "
        "missing. The log names those packages.",
        allowed="run ids of 32 hexadecimal digits, separated by commas",
        default_text="none",
        example="0123456789abcdef0123456789abcdef",
    )

    # --- Mail and alarms
    # Both lists of addresses are parsed only when a mail is sent: a wrong address must not stop the scoring.
    recipients_text: str = setting(
        "",
        "Recipients of fraud reports, separated by commas, semicolons or spaces; `Some Name <address>` is accepted. "
        "A domain beyond ASCII is encoded by IDNA; the part before the @ must be ASCII. Without recipients, reports "
        "stay pending and runs fail.",
        default_text="none; reports need it",
        example="analysts@example.com",
        variable="EMAIL_RECIPIENT",
    )
    operators_text: str = setting(
        "",
        "Recipients of [mails to operators](report.md#the-operators-mails), in the same form: failed tasks, late runs "
        "and alarms.",
        default_text="none; no mail is sent",
        example="operators@example.com",
        variable="FRAUD_OPERATORS_EMAIL",
    )
    # At most a week: Airflow ends a run 15 minutes later, and adds both to a date.
    late_minutes: Number = setting(
        15.0,
        "Time after which a run that was queued and has not finished is late. Airflow ends it 15 minutes after that.",
        bounds=(1, 10_080, "minutes"),
    )
    reminder_hours: Number = setting(
        6.0,
        "Time between reminders to operators while a failure lasts. 0 sends a mail for each failure.",
        bounds=(0, 8_760, "hours"),
    )
    installation: str = setting(
        "",
        "Name of this Airflow. Set it if another Airflow with the same `base_url` and `FRAUD_GROUP` uses the same "
        "staging area: the name keeps their incidents and the claims of their batches apart.",
        default_text="Airflow's `base_url`",
        example="fraud-eu",
    )
    alarm_lag: WholeNumber = setting(
        1_000_000,
        "Operators are mailed if a run leaves more offsets than this, over all partitions, to later runs.",
        bounds=(1, 1_000_000_000_000, "offsets"),
    )
    alarm_age_minutes: Number = setting(
        15.0,
        "Operators are mailed if the oldest payment that waits, or a Kafka transaction that blocks payments, is older.",
        bounds=(1, 525_600, "minutes"),
    )
    dead_letter_share: Number = setting(
        0.2,
        "Operators are mailed if at least this share of a batch's messages became dead letters, and again when the "
        "share is lower. The same applies to the messages of the output topic that a run of `record_predictions` "
        "reads.",
        bounds=(0.001, 1, ""),
    )
    dead_letter_least: WholeNumber = setting(
        10,
        "Minimum number of dead letters for that alarm: in the batch (or the run of `record_predictions`), or in all "
        "of them since the last one with a lower share.",
        bounds=(1, 1_000_000_000, "dead letters"),
    )
    mask_cards: bool = setting(True, "`false` shows whole card numbers in reports and in their attachments.")

    # --- Staging area
    staging_url: str = setting(
        lambda values: str(_fraud_folder(values) / "staging"),
        "Folder for the files that steps of a run hand to each other, or `s3://bucket/prefix` if workers share no "
        "disk. It holds card data; a local folder gets mode 0700. A URL with keys is refused: put them into the "
        "connection `aws_default`.",
        default_text="`$AIRFLOW_HOME/fraud/staging`",
        example="/var/lib/fraud/staging",
    )
    staging_hours: Number = setting(
        72.0,
        "How long staged batches are kept. A batch with a pending report is kept until the report is mailed. Files of "
        "a run that did not publish are removed earlier: see [housekeeping](operations.md#housekeeping).",
        bounds=(1, 87_600, "hours"),
    )

    # --- Export of confirmed payments
    confirmed_url: str = setting(
        "",
        "`s3://bucket/prefix` where `fraud export-confirmed` and the DAG `export_confirmed` store confirmed payments "
        "with whole card numbers. Docker compose sets `confirmed/` in `S3_BUCKET`.",
        default_text="none; the export needs it",
        example="s3://bucket/confirmed",
    )

    # --- Housekeeping
    # At most a century: earlier dates cannot be computed.
    log_days: Number = setting(
        14.0,
        "How long files in Airflow's log folder are kept after their last change: see "
        "[housekeeping](operations.md#housekeeping).",
        bounds=(1, 36_500, "days"),
    )
    history_days: Number = setting(
        30.0,
        "How long runs are kept in Airflow's database. `fraud clean-history` reads it.",
        bounds=(1, 36_500, "days"),
    )

    @property
    def recipients(self) -> tuple[str, ...]:
        """Return the addresses for fraud reports. Raise SettingError for an invalid one."""
        return parse_addresses("EMAIL_RECIPIENT", self.recipients_text)

    @property
    def operators(self) -> tuple[str, ...]:
        """Return the addresses for mails to operators. Raise SettingError for an invalid one."""
        return parse_addresses("FRAUD_OPERATORS_EMAIL", self.operators_text)

    @property
    def record_hours(self) -> float:
        """Return how many hours a batch record is kept for the ledger: its predictions must not outlive it."""
        return max(self.staging_hours, self.topic_retention_hours)


def late_after(environment: Mapping[str, str] = os.environ) -> timedelta:
    """Return the time after which a run is late. An invalid value counts as unset, so that the DAG file parses."""
    return timedelta(minutes=Settings.usable(environment).late_minutes)


def login(environment: Mapping[str, str], user: str, password: str) -> tuple[str, str] | tuple[None, None]:
    """Return the values of the variables `user` and `password`, or two None if neither is set.

    A password keeps its leading and trailing spaces. Raise SettingError if only one variable is set.
    """
    name, secret = environment.get(user, "").strip(), environment.get(password, "")
    if bool(name) != bool(secret.strip()):
        missing, present = (password, user) if name else (user, password)
        raise SettingError(f"{missing} is missing: {present} is set")
    return (name, secret) if name else (None, None)
