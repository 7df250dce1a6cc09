"""The least rights that docs/security.md gives are enough for the product, and not for more."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import psycopg2
import pytest
from airflow.providers.amazon.aws.log.s3_task_handler import S3RemoteLogIO
from boto3.exceptions import Boto3Error
from botocore.exceptions import ClientError
from mlflow.store.artifact import s3_artifact_repo

from fraud_scoring.confirmed_bucket import Bucket
from include.errors import ExportAccessError, ModelStoreError, StagingError
from include.housekeeping.remote_logs import trim_remote_logs
from include.models.model_cache import ModelCache
from include.models.resolve import DEFAULT, resolve
from include.settings import Settings
from include.storage.staging import Storage
from tests.models.conftest import Lab
from tests.models.zoo import save_seed_model
from tests.support.live_stack import LiveStack
from tests.support.pages import blocks

PREFIX = f"fraud-{uuid.uuid4().hex[:8]}"


@dataclass(frozen=True)
class Policy:
    """One of the page's, and what stands here for the names in it."""

    text: str
    names: Mapping[str, str]
    staging: str
    logs: str
    models: str | None
    """None: where MLflow puts them by itself."""
    confirmed: str
    of_others: str


def policies() -> dict[str, Policy]:
    several, one = blocks("security.md", "{")
    names = {
        "STAGING": "staging", "PREFIX": PREFIX, "MODELS": "mlflow", "LOGS": "staging", "FOLDER": f"{PREFIX}-logs",
        "CONFIRMED": "staging", "EXPORTS": f"{PREFIX}-confirmed",
    }  # fmt: skip
    bucket = f"s3://{PREFIX}"
    return {
        "buckets of their own": Policy(
            several,
            names,
            f"s3://staging/{PREFIX}",
            f"s3://staging/{PREFIX}-logs",
            None,
            f"s3://staging/{PREFIX}-confirmed",
            "s3://staging/of-others",
        ),
        "one bucket": Policy(
            one,
            {"S3_BUCKET": PREFIX},
            f"{bucket}/staging",
            f"{bucket}/logs",
            f"{bucket}/mlflow",
            f"{bucket}/confirmed",
            f"{bucket}/of-others",
        ),
    }


@pytest.fixture(params=["buckets of their own", "one bucket"])
def policy(request: pytest.FixtureRequest, service_environment: dict[str, str]) -> Iterator[Policy]:
    chosen = policies()[request.param]
    bucket: Any = boto3.resource("s3").Bucket(PREFIX)
    if chosen.models:
        bucket.create()
    yield chosen
    if chosen.models:
        bucket.objects.all().delete()
        bucket.delete()


@pytest.fixture
def small_rights(
    policy: Policy, service_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], None]]:
    """From the call on, the environment has the keys of a user with the page's policy, and no others."""
    iam: Any = boto3.client("iam", endpoint_url=service_environment["AWS_ENDPOINT_URL_S3"])
    document = policy.text
    for name, own in policy.names.items():
        document = document.replace(name, own)
    iam.create_user(UserName=PREFIX)
    iam.put_user_policy(UserName=PREFIX, PolicyName="least", PolicyDocument=document)
    key = iam.create_access_key(UserName=PREFIX)["AccessKey"]

    def use() -> None:
        user, secret = key["AccessKeyId"], key["SecretAccessKey"]
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", user)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        connection = json.loads(service_environment["AIRFLOW_CONN_AWS_DEFAULT"]) | {"login": user, "password": secret}
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
        # They remember whose keys they had.
        boto3.setup_default_session()
        s3_artifact_repo._cached_get_s3_client.cache_clear()

    yield use
    boto3.setup_default_session()
    s3_artifact_repo._cached_get_s3_client.cache_clear()
    iam.delete_access_key(UserName=PREFIX, AccessKeyId=key["AccessKeyId"])
    iam.delete_user_policy(UserName=PREFIX, PolicyName="least")
    iam.delete_user(UserName=PREFIX)


@pytest.fixture
def lab(service_environment: dict[str, str], tmp_path: Path) -> Lab:
    return Lab(save_seed_model(tmp_path / "seed"))


def experiment(lab: Lab, policy: Policy) -> str:
    name = f"payments {uuid.uuid4().hex}"
    lab.client.create_experiment(name, policy.models and f"{policy.models}/{uuid.uuid4().hex}")
    return name


def test_the_s3_policy_is_enough_to_stage_and_to_fetch_a_model(
    lab: Lab, policy: Policy, small_rights: Callable[[], None], tmp_path: Path
) -> None:
    run_ids = [lab.run(experiment(lab, policy), model=model) for model in ("logged", "artifacts")]
    small_rights()
    storage = Storage.open(policy.staging)
    assert storage.list("batches") == []
    storage.write("batches/one/large", b"x" * 12_000_000)  # in several parts
    storage.write("batches/one/small", b"x")
    storage.write("batches/one/small", b"y")
    assert storage.list("batches/one") == ["large", "small"]
    assert storage.need("batches/one/small") == b"y"
    assert storage.read("batches/one/none") is None
    storage.delete("batches/one/small")
    storage.delete("batches/one")
    assert storage.list("batches") == []
    for run_id in run_ids:
        run = resolve(run_id, experiment=None, chosen_by=DEFAULT)
        assert (ModelCache(tmp_path / "cache", 10**9).fetch(run) / "model.pkl").stat().st_size > 0


def test_the_s3_policy_is_enough_for_airflows_logs_and_to_trim_them(
    policy: Policy, small_rights: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID", "aws_default")
    small_rights()
    log = "dag_id=d/run_id=r/task_id=t/attempt=1.log"
    handler = S3RemoteLogIO(remote_base=policy.logs, base_log_folder=tmp_path, delete_local_copy=True)
    for text in ("first\n", "second\n"):
        (tmp_path / log).parent.mkdir(parents=True)
        (tmp_path / log).write_text(text)
        handler.upload(log)
        assert not (tmp_path / log).exists()  # only what has been uploaded goes
    assert handler.read(log, None)[1] == ["first\nsecond\n"]
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert trim_remote_logs(boto3.client("s3"), policy.logs, tomorrow).files == 1


def test_the_s3_policy_is_enough_to_export_and_to_check_that(policy: Policy, small_rights: Callable[[], None]) -> None:
    small_rights()
    bucket = Bucket.from_settings(Settings(confirmed_url=policy.confirmed))
    bucket.probe()
    bucket.put("confirmed.parquet", b"x")
    with pytest.raises(ExportAccessError, match="lacks the right"):
        Bucket.from_settings(Settings(confirmed_url=policy.of_others)).probe()


def test_a_run_that_may_not_be_read_is_named(lab: Lab, policy: Policy, small_rights: Callable[[], None]) -> None:
    """It may have a model, so an older run is not taken for the latest."""
    name = f"payments {uuid.uuid4().hex}"
    lab.client.create_experiment(name, f"{policy.of_others}/{uuid.uuid4().hex}")
    run_id = lab.run(name, model="artifacts")
    small_rights()
    with pytest.raises(
        ModelStoreError, match=rf"run {run_id} has a model.* aws_default lacks the right to it.*FRAUD_EXP"
    ):
        resolve("latest", experiment=name, chosen_by=DEFAULT)


def test_the_s3_policy_is_not_enough_for_more(lab: Lab, policy: Policy, small_rights: Callable[[], None]) -> None:
    Storage.open(policy.of_others).write("batch", b"x")
    run_id = lab.run(experiment(lab, policy))
    small_rights()
    others = Storage.open(policy.of_others)
    for forbidden in (lambda: others.read("batch"), lambda: others.write("batch", b"y"), lambda: others.list("")):
        with pytest.raises(StagingError, match=r"ACCESS_DENIED|AccessDenied"):
            forbidden()
    with pytest.raises((Boto3Error, ClientError), match="AccessDenied"):
        lab.client.log_text(run_id, "x", "model/MLmodel")
    s3: Any = boto3.client("s3")
    bucket, _, folder = policy.of_others.removeprefix("s3://").partition("/")
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.delete_object(Bucket=bucket, Key=f"{folder}/batch")
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.create_bucket(Bucket=f"{PREFIX}-more")


@pytest.fixture
def enter(services: LiveStack) -> Iterator[Callable[[str, str], Any]]:
    """Runs the page's SQL, with names of its own, and connects as one of its roles to one of its databases."""
    names = {name: f"{name}_{uuid.uuid4().hex[:8]}" for name in ("airflow", "mlflow")}
    (written,) = blocks("security.md", "CREATE ROLE airflow")
    commands = re.sub(r":'(\w+)_password'", r"'of \1'", written)
    for keyword in ("ROLE", "DATABASE", "OWNER"):
        for name, own in names.items():
            commands = re.sub(rf"\b{keyword} {name}\b", f"{keyword} {own}", commands)
    undo = [f"DROP {kind} IF EXISTS {name}" for kind in ("DATABASE", "ROLE") for name in names.values()]

    def run(statements: list[str]) -> None:
        with services.database("postgres") as connection:
            connection.autocommit = True
            for statement in statements:
                connection.cursor().execute(statement)

    def connect(role: str, database: str) -> Any:
        with services.database("postgres") as connection:
            place = {"host": connection.info.host, "port": connection.info.port, "dbname": names[database]}
        return closing(psycopg2.connect(user=names[role], password=f"of {role}", connect_timeout=5, **place))

    try:
        run([statement for statement in commands.split(";") if statement.strip()])
        yield connect
    finally:
        run(undo)


def test_each_postgresql_role_has_its_own_database_and_no_other(enter: Callable[[str, str], Any]) -> None:
    for role, other in (("airflow", "mlflow"), ("mlflow", "airflow")):
        with enter(role, role) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute("CREATE TABLE kept (number integer); INSERT INTO kept VALUES (1); SELECT number FROM kept")
            assert cursor.fetchone() == (1,)
            for forbidden in ("CREATE ROLE more", "CREATE DATABASE more", "SELECT rolpassword FROM pg_authid"):
                with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                    cursor.execute(forbidden)
        with pytest.raises(psycopg2.OperationalError, match="permission denied for database"), enter(role, other):
            pass
