"""The services of docker-compose.yaml run without Docker and score one batch. test_compose.py checks names by rules.

Each service of our own image runs with its command and environment from the file, with an `.env` that `fraud env`
wrote, in the order of `depends_on`, until its health check passes. It runs in its own namespaces, with the file's host
names, the image's folders and the Dockerfile's user. tests/support/containers.py lists what replaces each part of a
container. tests/support/stand_ins.py replaces other images, with the file's environment and commands. Then one batch
is scored.

The rules of test_compose.py notice every changed name, and this run notices a wrong value. docs/deploy.md lists what
neither notices.
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
def observed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The observations of tests/support/compose_run.py."""
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("setpriv"):
        pytest.skip("services in namespaces of their own need root, unshare and setpriv (Linux); CI has them")
    folder = tmp_path_factory.mktemp("compose")
    env = folder / ".env"
    # A password that a person chose and that looks like an option.
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
def test_batch_is_scored_and_mailed(observed: dict[str, Any]):
    services = project(load(), observed["variables"])
    assert set(observed["seconds"]) == set(services)
    assert set(own_services(load())) - {"cli"} <= set(services)
    assert observed["scored"] > 0
    assert observed["models"] == ["fraud_scoring"]
    assert observed["mails"]


def test_batch_is_recorded_in_the_ledger(observed: dict[str, Any]):
    recorded = observed["recorded"]
    assert recorded["scored"] == len(recorded["trans_nums"]) > 0
    assert set(recorded["trans_nums"]) & set(observed["known"])
    assert recorded["model"] == "fraud_scoring"
    assert recorded["run"].startswith("scheduled__")


def test_wrong_passwords_are_rejected(observed: dict[str, Any]):
    assert observed["wrong_password"] == 401
    assert observed["wrong_valkey_password"].startswith("-WRONGPASS")
    assert observed["own_database"] == "yes"
    assert 'permission denied for database "mlflow"' in observed["foreign_database"]
    assert 'password authentication failed for user "airflow"' in observed["not_the_ledger"]


def test_workers_preload_modules(observed: dict[str, Any]):
    assert observed["worker_preloads"]


def test_log_of_a_worker_is_read_from_s3(observed: dict[str, Any]):
    assert f"s3://{observed['variables']['S3_BUCKET']}/logs/" in observed["log"]


def test_history_is_trimmed(observed: dict[str, Any]):
    assert re.fullmatch(r"history before .* UTC: removed .*, in [\d.]+ s", observed["cleaned"].strip().splitlines()[-1])


def test_fraud_check_passes_in_the_cli_service(observed: dict[str, Any]):
    code, printed = observed["check"]
    assert (code, printed.splitlines()[-1]) == (0, "all is well"), printed
    assert "group fraud_scoring" in printed
    assert "ok     ledger_db: ledger:5432/ledger, not encrypted, as ledger" in printed
    assert f"ok     FRAUD_CONFIRMED_URL: s3://{observed['variables']['S3_BUCKET']}/confirmed can be written" in printed


def test_no_servers_first_process_is_a_shell(observed: dict[str, Any]):
    """A shell would not forward SIGTERM, and Docker would kill the server after ten seconds."""
    first = observed["first_processes"]
    assert first["valkey"] == "valkey-server"
    assert [name for name, command in first.items() if command in ("sh", "bash", "dash")] == []


def test_no_file_has_a_secret_or_a_card_number(observed: dict[str, Any]):
    assert observed["left"] == []
    assert observed["cards"] >= 4
    assert observed["looked_at"] > len(observed["seconds"])
