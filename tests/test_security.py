"""The least rights that docs/security.md gives are enough for the product, and not for more."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import psycopg2
import pytest
from boto3.exceptions import Boto3Error
from botocore.exceptions import ClientError
from mlflow.store.artifact import s3_artifact_repo

from include.batch.storage import Storage
from include.errors import StagingError
from include.models.cache import ModelCache
from include.models.resolve import DEFAULT, resolve
from tests.models.conftest import Lab
from tests.models.zoo import save_seed_model
from tests.support.live_stack import LiveStack

PAGE = (Path(__file__).parents[1] / "docs" / "security.md").read_text()
PREFIX = f"fraud-{uuid.uuid4().hex[:8]}"


def block(begins: str) -> str:
    """An indented block of the page."""
    (found,) = [text for text in re.findall(r"(?:^ {4}.*\n)+", PAGE, re.MULTILINE) if text.strip().startswith(begins)]
    return found


@pytest.fixture
def small_rights(service_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """From the call on, the environment has the keys of a user with the page's policy, and no others."""
    iam: Any = boto3.client("iam", endpoint_url=service_environment["AWS_ENDPOINT_URL_S3"])
    policy = block("{").replace("STAGING", "staging").replace("PREFIX", PREFIX).replace("MODELS", "mlflow")
    iam.create_user(UserName=PREFIX)
    iam.put_user_policy(UserName=PREFIX, PolicyName="least", PolicyDocument=policy)
    key = iam.create_access_key(UserName=PREFIX)["AccessKey"]

    def use() -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
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


def test_the_s3_policy_is_enough_to_stage_and_to_fetch_a_model(
    lab: Lab, small_rights: Callable[[], None], tmp_path: Path
) -> None:
    run_ids = [lab.run(lab.experiment(), model=model) for model in ("logged", "artifacts")]
    small_rights()
    storage = Storage.open(f"s3://staging/{PREFIX}")
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


def test_the_s3_policy_is_not_enough_for_more(lab: Lab, small_rights: Callable[[], None]) -> None:
    Storage.open("s3://staging/of-others").write("batch", b"x")
    run_id = lab.run(lab.experiment())
    small_rights()
    others = Storage.open("s3://staging/of-others")
    for forbidden in (lambda: others.read("batch"), lambda: others.write("batch", b"y"), lambda: others.list("")):
        with pytest.raises(StagingError, match=r"ACCESS_DENIED|AccessDenied"):
            forbidden()
    with pytest.raises((Boto3Error, ClientError), match="AccessDenied"):
        lab.client.log_text(run_id, "x", "model/MLmodel")
    with pytest.raises(ClientError, match="AccessDenied"):
        boto3.client("s3").create_bucket(Bucket=PREFIX)


@pytest.fixture
def enter(services: LiveStack) -> Iterator[Callable[[str, str], Any]]:
    """Runs the page's SQL, with names of its own, and connects as one of its roles to one of its databases."""
    names = {name: f"{name}_{uuid.uuid4().hex[:8]}" for name in ("airflow", "mlflow")}
    commands = re.sub(r":'(\w+)_password'", r"'of \1'", block("CREATE ROLE"))
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
