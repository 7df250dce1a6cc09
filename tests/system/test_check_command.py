"""The whole command `fraud check`, as a shell runs it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from dev.stack.part import BIN
from tests.support.live_stack import LiveStack


def test_missing_database_and_invalid_aws_connection_are_reported(stack: LiveStack, tmp_path: Path) -> None:
    environment = {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/none.db",
        "AIRFLOW_CONN_AWS_DEFAULT": '{"conn_type": "aws", "extra": {"role_arn": 7}}',
        "FRAUD_MODEL_CACHE": str(tmp_path / "models"),
    }
    done = subprocess.run(
        [BIN / "fraud", "check"],
        env={**os.environ, **stack.env, **environment}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert lines[0].startswith("ok     Airflow's database: none here, as on a worker"), done.stdout + done.stderr
    assert lines[1].startswith("WRONG  aws_default: cannot be used (")
    assert [line for line in lines if line.startswith("ok     smtp_default: ")]
    assert "Traceback" not in done.stderr


def test_command_reports_every_failed_check(stack: LiveStack, tmp_path: Path) -> None:
    url = stack.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]
    database = re.sub(":[0-9A-Za-z]{64}@", ":wr0ng@", url)
    assert database != url
    wrong = {
        "FRAUD_OUTPUT_TOPIC": "no_such_topic",
        "EMAIL_RECIPIENT": "",
        "AIRFLOW_CONN_LEDGER_DB": stack.env["AIRFLOW_CONN_LEDGER_DB"].replace('"schema": "ledger"', '"schema": "none"'),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
    }
    cache = {"FRAUD_MODEL_CACHE": str(tmp_path)}
    done = subprocess.run(
        [BIN / "fraud", "check"],
        env={**os.environ, **stack.env, **wrong, **cache}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("WRONG  topic no_such_topic: does not exist")]
    assert [line for line in lines if line.startswith("WRONG  Airflow's database: cannot be read (OperationalError)")]
    assert "wr0ng" not in done.stdout + done.stderr
    assert [line for line in lines if line.startswith("WRONG  ledger_db: the ledger's database at ")]
    assert [line for line in lines if line.startswith("ok     FRAUD_CONFIRMED_URL: s3://")]
    assert [line for line in lines if line.startswith("WRONG  mail addresses: EMAIL_RECIPIENT is empty")]
    assert [line for line in lines if line.startswith("ok     smtp_default: 127.0.0.1:")]
    assert [line for line in lines if line.startswith("ok     staging: ")]
