from __future__ import annotations

import json
import os
import uuid
from dataclasses import dataclass
from typing import Any

import boto3
import pandas as pd
import pyarrow.parquet as pq
import pytest
from pyarrow import BufferReader, Table

from include.ledger.connection import LedgerConnection


@dataclass(frozen=True)
class Place:
    """A place for confirmed payments, of the test's own."""

    url: str
    client: Any

    def names(self) -> list[str]:
        found = self.client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix).get("Contents", ())
        return sorted(entry["Key"].removeprefix(self._prefix) for entry in found)

    def table(self, name: str) -> Table:
        content = self.client.get_object(Bucket=self._bucket, Key=f"{self._prefix}{name}")["Body"].read()
        return pq.read_table(BufferReader(content))

    def newest(self) -> dict[str, int]:
        """Return the verdict of each payment from its newest file, as readers must."""
        frames = [self.table(name).to_pandas() for name in self.names()]
        whole = pd.concat(frames).drop_duplicates("trans_num", keep="last")
        return dict(zip(whole["trans_num"], whole["is_fraud"], strict=True))

    @property
    def _bucket(self) -> str:
        return self.url.removeprefix("s3://").partition("/")[0]

    @property
    def _prefix(self) -> str:
        return f"{self.url.removeprefix('s3://').partition('/')[2]}/"


@pytest.fixture
def ledger_connection(
    ledger: LedgerConnection, service_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> LedgerConnection:
    """The test's own ledger in the variable that commands and tasks read."""
    connection = {
        "conn_type": "postgres", "host": ledger.host, "port": ledger.port, "schema": ledger.database,
        "login": ledger.user, "password": ledger.password,
    }  # fmt: skip
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER_DB", json.dumps(connection))
    return ledger


@pytest.fixture
def place(service_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Place:
    """A bucket whose keys are only in the connection aws_default."""
    made = Place(f"s3://staging/{uuid.uuid4().hex[:12]}/confirmed", boto3.client("s3"))
    connection = {
        "conn_type": "aws", "login": os.environ["AWS_ACCESS_KEY_ID"], "password": os.environ["AWS_SECRET_ACCESS_KEY"],
        "extra": {"region_name": os.environ["AWS_REGION"], "endpoint_url": os.environ["AWS_ENDPOINT_URL_S3"]},
    }  # fmt: skip
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    monkeypatch.setenv("FRAUD_CONFIRMED_URL", made.url)
    return made
