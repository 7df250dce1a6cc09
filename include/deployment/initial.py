"""The `.env` that docker compose starts with: generated secrets, and what an earlier setup had.

Standard library only, from Python 3.9 on, as env_file.py.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from include.deployment import env_file
from include.deployment.earlier import NAMES, read_earlier
from include.deployment.secret import fernet_key, secret
from include.deployment.text_file import read_text
from include.errors import SettingError

LOCAL = {
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
ACCOUNTS = {"COMPOSE_PROFILES": "accounts"}
# Of an own account nothing can be assumed; who sends mail is asked for only where the login does not say it, and the
# ledger has a server here where no other is named.
NEEDED = tuple(name for name in NAMES if name not in ("SMTP_FROM", "LOGGER_SQL_URI"))
# What a whole connection says instead. The others are still needed: docker-compose.yaml names them, or they are read as
# they are, by MLflow and `fraud train`.
_SAID_BY = {
    "AIRFLOW_CONN_KAFKA_DEFAULT": ("SASL_USERNAME", "SASL_PASSWORD"),
    "AIRFLOW_CONN_SMTP_DEFAULT": ("SMTP_PORT", "SMTP_USER", "SMTP_PASSWORD", "SMTP_FROM"),
}
# MLflow still knows the local models, by addresses in a bucket whose name on AWS may be anybody's: an experiment of its
# own keeps runs and training away from them.
_AFTER_LOCAL = {"FRAUD_EXPERIMENT": "fraud_scoring_accounts"}


def generated(profile: str) -> dict[str, str]:
    passwords = ("POSTGRES", "AIRFLOW_DB", "MLFLOW_DB", "LEDGER_POSTGRES", "LEDGER_DB", "VALKEY")
    values = {
        "AIRFLOW_ADMIN_PASSWORD": secret(24),
        "AIRFLOW__CORE__FERNET_KEY": fernet_key(),
        "AIRFLOW__API__SECRET_KEY": secret(44),
        # HS512 wants 64 bytes.
        "AIRFLOW__API_AUTH__JWT_SECRET": secret(88),
        **{f"{name}_PASSWORD": secret() for name in passwords},
        # What the parts of the S3 server sign to each other.
        "S3_INTERNAL_KEY": secret(44),
    }
    return values if profile != "local" else values | {"AWS_SECRET_ACCESS_KEY": secret(40)}


@dataclass
class Written:
    path: Path
    profile: str
    new: bool
    generated: list[str] = field(default_factory=list)
    taken: list[str] = field(default_factory=list)
    assumed: list[str] = field(default_factory=list)
    switched: bool = False
    """From local services to accounts."""
    removed: list[str] = field(default_factory=list)
    """Then: values of the local services, without another in their place."""
    kept: list[str] = field(default_factory=list)
    """There already with another value than the earlier setup's."""
    missing: list[str] = field(default_factory=list)
    recoded: bool = False
    """It was UTF-16, had a byte order mark, or the line ends of Windows."""

    def lines(self) -> list[str]:
        """For a person: names, never values."""
        told = (
            ("taken out, for they were the local services'", self.removed),
            ("generated", self.generated),
            ("taken over", self.taken),
            ("for the local services" if self.profile == "local" else "set", self.assumed),
            ("kept as it was, though the earlier setup says otherwise (--replace takes that)", self.kept),
        )
        done = "written" if self.new else "completed"
        how = "changed from local services to accounts" if self.switched else f"{done}, for {self.profile} services"
        lines = [f"{self.path}: {how}"]
        lines += [f"  {what}: {', '.join(names)}" for what, names in told if names]
        if self.generated and not self.new:
            lines.append("  generated ones do not fit data that is there already: if you had others, put those back")
        if self.switched:
            lines.append(
                "  all else stays as it was, the databases' passwords too. What the local Kafka, S3 and mail hold does "
                "not come along: train a model anew, into the experiment that FRAUD_EXPERIMENT names. Before `docker "
                "compose up`, stop what still runs of them: `docker compose --profile local down`"
            )
        if self.recoded:
            lines.append("  its text is now UTF-8 with the line ends of Unix, as docker compose and shells read it")
        if len(lines) == 1:
            lines = [f"{self.path}: nothing to add"]
        if self.missing:
            lines.append(f"  STILL MISSING, write them into it: {', '.join(self.missing)}")
        return lines


def write_env(path: Path, *, earlier: Path | None, accounts: bool, replace: bool) -> Written:
    """Adds what is missing, and changes nothing that is there, but for what `replace` takes from the earlier setup, and
    for the local services' own values in a file that is to be for accounts.

    Raises SettingError, before anything is written.
    """
    text = read_text(path) if path.exists() else ""
    there = {name: value for name, value in env_file.parse(text, str(path)).items() if value.strip()}
    asked = "accounts" if accounts or earlier else None
    removed = _local_ones(there) if (asked or there.get("COMPOSE_PROFILES")) == "accounts" else []
    text = env_file.without(text, removed)
    there = {name: value for name, value in there.items() if name not in removed}
    profile = there.get("COMPOSE_PROFILES") or asked or "local"
    if asked and profile != asked:
        raise SettingError(f"{path}: holds COMPOSE_PROFILES={profile}, which is not for {asked}: take that line out")
    found = read_earlier(earlier) if earlier else {}
    taken = {name: value for name, value in found.items() if name not in there or (replace and there[name] != value)}
    known = there | taken
    made = {name: value for name, value in generated(profile).items() if name not in known}
    defaults = LOCAL if profile == "local" else ACCOUNTS | _AFTER_LOCAL if removed else ACCOUNTS
    assumed = {name: value for name, value in defaults.items() if name not in known}
    new = not text
    recoded = not new and path.read_bytes() != text.encode()
    text = (
        text
        or "# For docker compose; made by `fraud env`. Keep it: the data's passwords are here. Settings: .env.example\n"
    )
    text = env_file.added(text, assumed, "services")
    text = env_file.added(text, taken, "taken over")
    text = env_file.added(text, made, "generated")
    _write(path, text)
    known = known | assumed | made
    said = {name for connection, names in _SAID_BY.items() if known.get(connection) for name in names}
    needed = [name for name in (*NEEDED, *_sender(known)) if name not in said] if profile != "local" else []
    return Written(
        path,
        profile,
        new,
        generated=list(made),
        taken=list(taken),
        assumed=[name for name in assumed if name != "COMPOSE_PROFILES"],
        switched=bool(removed),
        removed=[name for name in removed if name not in known],
        kept=[name for name in found if name not in taken and there[name] != found[name]],
        missing=env_file.missing(needed, known),
        recoded=recoded,
    )


def _local_ones(there: dict[str, str]) -> list[str]:
    """What of these values is the local services' own: nothing, where the file is for accounts already."""
    brokers = "KAFKA_BOOTSTRAP_SERVERS"
    if there.get("COMPOSE_PROFILES") != "local" and there.get(brokers) != LOCAL[brokers]:
        return []
    own = [name for name, value in LOCAL.items() if there.get(name) == value]
    # The key was made for the local S3; AWS has none of such a name.
    return [*own, "AWS_SECRET_ACCESS_KEY"] if "AWS_ACCESS_KEY_ID" in own else own


def _sender(known: dict[str, str]) -> tuple[str, ...]:
    """Mail comes from the login, where that is an address."""
    return ("SMTP_FROM",) if "@" not in known.get("SMTP_USER", "@") else ()


def _write(path: Path, text: str) -> None:
    """Whole or not at all, and never readable by others, not even for a moment."""
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
