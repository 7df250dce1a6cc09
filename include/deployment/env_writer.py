"""Write the `.env` that docker compose starts with: generated secrets, and settings of an earlier setup.

Standard library only, from Python 3.9 on, like env_file.py.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from include.deployment import env_file
from include.deployment.earlier_settings import NAMES, read_earlier
from include.deployment.secret import fernet_key, secret
from include.deployment.text_file import read_text
from include.errors import SettingError

LOCAL_SETTINGS = {
    "COMPOSE_PROFILES": "local",
    "KAFKA_BOOTSTRAP_SERVERS": "kafka:9092",
    "AWS_ACCESS_KEY_ID": "fraud-scoring",
    "AWS_REGION": "us-east-1",
    "AWS_ENDPOINT_URL_S3": "http://s3:8333",
    "S3_BUCKET": "fraud-scoring",
    "SMTP_SERVER": "mail",
    "SMTP_PORT": "1025",
    "SMTP_ENCRYPTION": "none",
    "SMTP_FROM": "fraud-scoring@example.com",
    "EMAIL_RECIPIENT": "analysts@example.com",
    "FRAUD_OPERATORS_EMAIL": "operators@example.com",
}
_HEADING = (
    "# For docker compose, written by `fraud env`. Keep it: the data's passwords are here. Settings: .env.example\n"
)
ACCOUNTS = {"COMPOSE_PROFILES": "accounts"}
# Accounts have no default values. SMTP_FROM is required only if the login is no mail address, and the ledger has a
# server here unless LOGGER_SQL_URI names another.
REQUIRED = tuple(name for name in NAMES if name not in ("SMTP_FROM", "LOGGER_SQL_URI"))
# Variables that a complete connection replaces. The others are still required: docker-compose.yaml refers to them, or
# MLflow and `fraud train` read them.
_REPLACED_BY = {
    "AIRFLOW_CONN_KAFKA_DEFAULT": ("SASL_USERNAME", "SASL_PASSWORD"),
    "AIRFLOW_CONN_SMTP_DEFAULT": ("SMTP_PORT", "SMTP_USER", "SMTP_PASSWORD", "SMTP_FROM"),
}
# MLflow still has the local models, with URLs of a bucket whose name may belong to someone else on AWS. A separate
# experiment prevents runs from loading them.
_AFTER_LOCAL = {"FRAUD_EXPERIMENT": "fraud_scoring_accounts"}


def generate_secrets(profile: str) -> dict[str, str]:
    """Return new passwords and keys for a profile, `local` or `accounts`."""
    passwords = ("POSTGRES", "AIRFLOW_DB", "MLFLOW_DB", "LEDGER_POSTGRES", "LEDGER_DB", "VALKEY")
    values = {
        "AIRFLOW_ADMIN_PASSWORD": secret(24),
        "AIRFLOW__CORE__FERNET_KEY": fernet_key(),
        "AIRFLOW__API__SECRET_KEY": secret(44),
        # HS512 needs 64 bytes.
        "AIRFLOW__API_AUTH__JWT_SECRET": secret(88),
        **{f"{name}_PASSWORD": secret() for name in passwords},
        # The components of the S3 server sign requests to each other with it.
        "S3_INTERNAL_KEY": secret(44),
    }
    return values if profile != "local" else values | {"AWS_SECRET_ACCESS_KEY": secret(40)}


@dataclass
class WrittenEnv:
    """The changes in an .env, as names of variables and never their values.

    `new`: the file did not exist. `copied`: copied from the earlier setup. `defaults`: default values. `switched`: the
    file was changed from local services to accounts; `removed` are the local services' values that were not replaced.
    `kept`: variables whose value differs from the earlier setup. `recoded`: the file was UTF-16, or had a byte order
    mark or the line ends of Windows.
    """

    path: Path
    profile: str
    new: bool
    generated: list[str] = field(default_factory=list)
    copied: list[str] = field(default_factory=list)
    defaults: list[str] = field(default_factory=list)
    switched: bool = False
    removed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    recoded: bool = False

    def lines(self) -> list[str]:
        """Return the changes as lines of text."""
        changes = (
            ("removed, because they were the local services'", self.removed),
            ("generated", self.generated),
            ("copied", self.copied),
            ("for the local services" if self.profile == "local" else "set", self.defaults),
            ("kept, although the earlier setup has another value (--replace copies that)", self.kept),
        )
        verb = "written" if self.new else "completed"
        summary = "changed from local services to accounts" if self.switched else f"{verb}, for {self.profile} services"
        lines = [f"{self.path}: {summary}"]
        lines += [f"  {change}: {', '.join(names)}" for change, names in changes if names]
        if self.generated and not self.new:
            lines.append("  generated passwords do not match existing data: if you had other passwords, restore them")
        if self.switched:
            lines.append(
                "  everything else is unchanged, including the databases' passwords. Data in the local Kafka, S3 and "
                "mail is not migrated: train a new model, into the experiment that FRAUD_EXPERIMENT names. Before "
                "`docker compose up`, stop the local services: `docker compose --profile local down`"
            )
        if self.recoded:
            lines.append("  its text is now UTF-8 with the line ends of Unix, as docker compose and shells read it")
        if len(lines) == 1:
            lines = [f"{self.path}: nothing to add"]
        if self.missing:
            lines.append(f"  STILL MISSING, add them to the file: {', '.join(self.missing)}")
        return lines


def write_env(path: Path, *, earlier: Path | None, accounts: bool, replace: bool) -> WrittenEnv:
    """Add missing variables to the file, and create it if there is none.

    Existing values stay, with two exceptions: `replace` copies those of the earlier setup, and `accounts` removes the
    values of the local services. Raise SettingError before anything is written.
    """
    text = read_text(path) if path.exists() else ""
    existing = {name: value for name, value in env_file.parse(text, str(path)).items() if value.strip()}
    requested = "accounts" if accounts or earlier else None
    removed = _local_names(existing) if (requested or existing.get("COMPOSE_PROFILES")) == "accounts" else []
    text = env_file.without_names(text, removed)
    existing = {name: value for name, value in existing.items() if name not in removed}
    profile = existing.get("COMPOSE_PROFILES") or requested or "local"
    if requested and profile != requested:
        raise SettingError(f"{path}: COMPOSE_PROFILES={profile} is not for {requested}: remove that line")
    earlier_values = read_earlier(earlier) if earlier else {}
    copied = {
        name: value
        for name, value in earlier_values.items()
        if name not in existing or (replace and existing[name] != value)
    }
    known = existing | copied
    generated = {name: value for name, value in generate_secrets(profile).items() if name not in known}
    profile_defaults = LOCAL_SETTINGS if profile == "local" else ACCOUNTS | _AFTER_LOCAL if removed else ACCOUNTS
    defaults = {name: value for name, value in profile_defaults.items() if name not in known}
    new = not text
    recoded = not new and path.read_bytes() != text.encode()
    text = text or _HEADING
    text = env_file.with_lines(text, defaults, "services")
    text = env_file.with_lines(text, copied, "copied from the earlier setup")
    text = env_file.with_lines(text, generated, "generated")
    _write(path, text)
    known = known | defaults | generated
    replaced = {name for connection, names in _REPLACED_BY.items() if known.get(connection) for name in names}
    required = [name for name in (*REQUIRED, *_sender(known)) if name not in replaced] if profile != "local" else []
    return WrittenEnv(
        path,
        profile,
        new,
        generated=list(generated),
        copied=list(copied),
        defaults=[name for name in defaults if name != "COMPOSE_PROFILES"],
        switched=bool(removed),
        removed=[name for name in removed if name not in known],
        kept=[name for name in earlier_values if name not in copied and existing[name] != earlier_values[name]],
        missing=env_file.missing_names(required, known),
        recoded=recoded,
    )


def _local_names(existing: dict[str, str]) -> list[str]:
    """Return the names whose values are those of the local services; none if the file is already for accounts."""
    brokers = "KAFKA_BOOTSTRAP_SERVERS"
    if existing.get("COMPOSE_PROFILES") != "local" and existing.get(brokers) != LOCAL_SETTINGS[brokers]:
        return []
    own = [name for name, value in LOCAL_SETTINGS.items() if existing.get(name) == value]
    # The key was generated for the local S3.
    return [*own, "AWS_SECRET_ACCESS_KEY"] if "AWS_ACCESS_KEY_ID" in own else own


def _sender(known: dict[str, str]) -> tuple[str, ...]:
    """Return SMTP_FROM unless the login is a mail address, which is the sender then."""
    return ("SMTP_FROM",) if "@" not in known.get("SMTP_USER", "@") else ()


def _write(path: Path, text: str) -> None:
    """Write the file atomically with mode 0600. Raise SettingError if it cannot be written."""
    path = path.resolve()
    part = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with os.fdopen(
            os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8", newline="\n"
        ) as file:
            file.write(text)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise SettingError(f"{path}: cannot be written: {error.strerror}") from None
