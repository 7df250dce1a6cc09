"""What the option `celery` adds to a stack. tests/faults/test_workers.py runs tasks on the workers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from dev.stack import Options, Stack, StackError, airflow, processes
from dev.stack.home import StackHome
from dev.stack.parts import parts_of, select
from dev.stack.worker import WORKERS

CELERY = Options(celery=True)


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Stack]:
    stack = Stack(tmp_path / "home", CELERY)
    stack.up(["valkey"])
    yield stack
    stack.down()


def _client(stack: Stack, password: str | None = None) -> redis.Redis:
    port = int(stack.status()[0].address.rpartition(":")[2])
    return redis.Redis("127.0.0.1", port, password=password, socket_timeout=5)


def test_valkey_needs_a_password_keeps_data_and_leaves_no_process(valkey: Stack) -> None:
    home = StackHome(valkey.home.path)
    home.create([])
    (process,) = processes.find(home)
    assert home.secret("valkey") not in " ".join(process.cmdline())
    listening = [one.laddr.ip for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN]
    assert listening == ["127.0.0.1"]
    for wrong in (None, "wrong"):
        with _client(valkey, wrong) as client, pytest.raises(redis.AuthenticationError):
            client.ping()
    with _client(valkey, home.secret("valkey")) as client:
        client.set("task", "queued")
    valkey.stop("valkey")
    valkey.start("valkey")
    with _client(valkey, home.secret("valkey")) as client:
        assert client.get("task") == b"queued"
    valkey.kill("valkey")
    assert processes.find(home) == []


def test_stack_without_celery_has_no_part_of_it(tmp_path: Path) -> None:
    assert set(parts_of(CELERY)) - set(parts_of(Options())) == {"valkey", "worker-1", "worker-2"}
    assert {"valkey", "worker-1", "worker-2"} <= set(select(["airflow"], CELERY))
    with pytest.raises(StackError, match="no such part"):
        select(["worker-1"], Options())
    home = StackHome(tmp_path)
    home.create(name for part in parts_of(home.options).values() for name in part.ports)
    plain = airflow.environment(home)
    assert plain["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"
    assert not [name for name in plain if "CELERY" in name or "REMOTE" in name or name == "FRAUD_SHARDS"]


def test_workers_have_own_folders_and_no_secrets_of_the_scheduler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRAUD_STACK_ENV_FILE", os.devnull)
    home = StackHome(tmp_path)
    home.make_folders()
    home.choose(CELERY)
    home.create(name for part in parts_of(CELERY).values() for name in part.ports)
    own = [worker.environment(home) for worker in WORKERS]
    folders = [{name for name, value in one.items() if str(tmp_path) in value} for one in own]
    assert folders[0] == folders[1] == {"AIRFLOW_HOME", "AIRFLOW__LOGGING__BASE_LOG_FOLDER", "MAILDIR"}
    for name in folders[0] - {"MAILDIR"}:
        assert own[0][name] != own[1][name], name
    assert {one["FRAUD_STAGING_URL"] for one in own} == {"s3://staging/fraud"}
    for secret in ("fernet", "jwt", "session", "airflow"):
        assert not [name for name, value in own[0].items() if home.secret(secret) in value], secret
