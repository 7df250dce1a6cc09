"""docker-compose.yaml runs, without Docker: second layer, the first is test_compose.py.

Each of our own services is started with its command and environment from the file, put together from an `.env` that
`fraud env` wrote, in the order of `depends_on`, until its own health check passes, in namespaces of its own: the host
names are the file's, the folders the image's, the user the Dockerfile's. What stands in for what is one table in
tests/support/containers.py; for images that are not ours it is tests/support/stand_ins.py, which take the file's
environment and commands too. Then one batch goes through the whole.

Together: the rules see every name that is changed, also one that would only be missed some day; this run sees a value
that is wrong. What neither sees stands in docs/deploy.md.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from typing import Any

import pytest

from include.deployment.env_file import parse
from include.deployment.env_writer import write_env
from tests.support.compose import ROOT, load, own_services, project

NAMESPACES = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--propagation", "private"]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What tests/support/compose_run.py saw."""
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("setpriv"):
        pytest.skip("services in namespaces of their own need root, unshare and setpriv (Linux); CI has them")
    folder = tmp_path_factory.mktemp("compose")
    env = folder / ".env"
    # A person's own password, which looks like an option.
    env.write_text("AIRFLOW_ADMIN_PASSWORD=-7tQzL0vWb4nXs8rKd2m\n")
    write_env(env, earlier=None, accounts=False, replace=False)
    with env.open("a") as file:
        file.write("PRODUCER_RATE=50\n")  # so that frauds are among the first
    command = [
        *NAMESPACES,
        sys.executable,
        "-m",
        "tests.support.compose_run",
        str(folder),
        str(env),
        "docker-compose.yaml",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1150)
    assert done.returncode == 0, done.stderr[-6000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found | {"variables": parse(env.read_text())}


@pytest.mark.timeout(1200)
def test_a_batch_goes_through_everything(seen: dict[str, Any]):
    services = project(load(), seen["variables"])
    assert set(seen["seconds"]) == set(services)
    assert set(own_services(load())) - {"cli"} <= set(services)
    assert seen["scored"] > 0
    assert seen["models"] == ["fraud_scoring"]
    assert seen["mails"]


def test_the_batch_stands_in_the_ledger(seen: dict[str, Any]):
    recorded = seen["recorded"]
    assert recorded["scored"] == len(recorded["trans_nums"]) > 0
    assert set(recorded["trans_nums"]) & set(seen["known"])
    assert recorded["model"] == "fraud_scoring"
    assert recorded["run"].startswith("scheduled__")


def test_logins_refuse_another_password(seen: dict[str, Any]):
    assert seen["wrong_password"] == 401
    assert seen["wrong_valkey_password"].startswith("-WRONGPASS")
    assert seen["own_database"] == "yes"
    assert 'permission denied for database "mlflow"' in seen["foreign_database"]
    assert 'password authentication failed for user "airflow"' in seen["not_the_ledger"]


def test_workers_import_ahead(seen: dict[str, Any]):
    assert seen["worker_preloads"]


def test_a_workers_log_is_read_from_s3(seen: dict[str, Any]):
    assert f"s3://{seen['variables']['S3_BUCKET']}/logs/" in seen["log"]


def test_history_is_trimmed_there(seen: dict[str, Any]):
    assert re.fullmatch(r"history before .* UTC: removed .*, in [\d.]+ s", seen["cleaned"].strip().splitlines()[-1])


def test_check_finds_all_well_in_the_cli(seen: dict[str, Any]):
    code, said = seen["check"]
    assert (code, said.splitlines()[-1]) == (0, "all is well"), said
    assert "group fraud_scoring" in said
    assert "ok     ledger_db: ledger:5432/ledger, not encrypted, as ledger" in said
    assert f"ok     FRAUD_CONFIRMED_URL: s3://{seen['variables']['S3_BUCKET']}/confirmed can be written" in said


def test_no_shell_stands_between_docker_and_a_server(seen: dict[str, Any]):
    """It would not pass SIGTERM on, and after ten seconds the server would be killed."""
    first = seen["first_processes"]
    assert first["valkey"] == "valkey-server"
    assert [name for name, command in first.items() if command in ("sh", "bash", "dash")] == []


def test_no_secret_and_no_card_number_is_left(seen: dict[str, Any]):
    assert seen["left"] == []
    assert seen["cards"] >= 4
    assert seen["looked_at"] > len(seen["seconds"])
