"""A long history of the DAG score_payments: copies of one run's rows and files with increasing ages."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2

from include.batch.batch_id import hour_of, new_batch_id
from include.settings import Settings
from tests.support.live_stack import LiveStack
from tests.support.pipeline import DAG

MADE = "made__"
# Of a report that is owed, and that no run looks for.
GROUP = "made"
# What belongs to a run, referred to before referring.
TABLES = (
    "dag_run",
    "task_instance",
    "task_instance_history",
    "rendered_task_instance_fields",
    "task_map",
    "xcom",
    "log",
)
# Where a real batch has its files in folders, one for each attempt.
_STAGED = "payments-0-0.parquet"
_NEW = {
    ("dag_run", "run_id"): "made.run_id",
    ("dag_run", "run_type"): "'scheduled'",
    ("dag_run", "logical_date"): "made.at",
    ("task_instance", "id"): "gen_random_uuid()",
    ("task_instance_history", "task_instance_id"): "gen_random_uuid()",
}
_NEW_RUNS = f"(SELECT '{MADE}' || minute AS run_id, now() - make_interval(mins => minute) AS at FROM minutes)"
_RUNS = "(SELECT id, run_id, run_after AS at FROM dag_run)"


class History:
    """`ages` are the ages of the runs in minutes."""

    def __init__(self, stack: LiveStack, ages: range) -> None:
        self.url = stack.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].replace("postgresql+psycopg2", "postgresql")
        self.logs = Path(stack.env["AIRFLOW__LOGGING__BASE_LOG_FOLDER"])
        self.settings = Settings.from_environment(stack.env)
        self.staging = Path(self.settings.staging_url)
        self.ages = ages
        self._began = time.monotonic()

    def younger(self, **age: float) -> range:
        """Return how many runs are younger: they have aged since they were created."""
        minutes = timedelta(**age) / timedelta(minutes=1)
        grown = (time.monotonic() - self._began) / 60
        least, most = (sum(each < limit for each in self.ages) for limit in (minutes - grown, minutes))
        return range(least, most + 1)

    def make_rows(self, like: str) -> None:
        """Copy all rows that Airflow keeps of the run `like`, once for each age."""
        with self._cursor() as cursor:
            cursor.execute("CREATE TEMP TABLE minutes AS SELECT unnest(%s) AS minute", (list(self.ages),))
            for table in TABLES:
                cursor.execute(
                    "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = 'public' "
                    "AND table_name = %s AND (column_default IS NULL OR column_default NOT LIKE 'nextval%%')",
                    (table,),
                )
                columns = dict(cursor.fetchall())
                values = ", ".join(_value(table, name, kind) for name, kind in columns.items())
                names = ", ".join(f'"{name}"' for name in columns)
                runs = _NEW_RUNS if table == "dag_run" else _RUNS
                cursor.execute(
                    f"INSERT INTO {table} ({names}) SELECT {values} FROM {table} AS one "
                    "JOIN dag_run AS origin ON origin.dag_id = one.dag_id AND origin.run_id = one.run_id, "
                    f"{runs} AS made "
                    f"WHERE one.dag_id = '{DAG}' AND one.run_id = %s AND made.run_id LIKE '{MADE}%%'",
                    (like,),
                )
                # Otherwise the check of foreign keys is planned for an almost empty table, and is slow.
                cursor.execute(f"ANALYZE {table}")
            # A deadline that was missed, now and then.
            cursor.execute(
                "WITH told AS (INSERT INTO callback (id, type, fetch_method, data, state, priority_weight, created_at) "
                "SELECT gen_random_uuid(), 'triggerer', 'import_path', '{}', 'success', 1, run_after FROM dag_run "
                f"WHERE run_id LIKE '{MADE}%' AND id % 100 = 0 RETURNING id, created_at) "
                "INSERT INTO deadline (id, created_at, last_updated_at, deadline_time, missed, callback_id, dagrun_id) "
                "SELECT gen_random_uuid(), run_after, run_after, run_after, true, told.id, dag_run.id FROM told "
                f"JOIN dag_run ON run_after = told.created_at AND run_id LIKE '{MADE}%'"
            )

    def make_files(self, like: str) -> None:
        """Copy its logs and a staged batch, once for each age."""
        now, runs = time.time(), self.logs / f"dag_id={DAG}"
        original = runs / f"run_id={like}"
        # A mapped task's logs are one folder deeper.
        originals = [(path.relative_to(original), path.read_bytes()) for path in original.rglob("*") if path.is_file()]
        assert originals
        for minutes in self.ages:
            then = now - minutes * 60
            for name, content in originals:
                _write(runs / f"run_id={MADE}{minutes}" / name, content, then)
            batch = new_batch_id(datetime.fromtimestamp(then, UTC))
            _write(self.staging / "batches" / hour_of(batch) / batch / _STAGED, b"", then)

    def make_models(self, count: int, gigabytes: float) -> None:
        """Create sparse files in the model cache, which take no space on the disk."""
        for number in range(count):
            model = self.settings.model_cache / f"{MADE}{number}"
            model.mkdir(parents=True)
            (model / "MLmodel").touch()
            os.truncate(model / "MLmodel", int(gigabytes * 1e9))
            then = time.time() - (count - number) * 86_400
            os.utime(model, (then, then))

    def remove(self) -> None:
        for table, column in (("dag_run", "run_id"), ("log", "run_id"), ("connection", "conn_id")):
            self.ask(f"DELETE FROM {table} WHERE {column} LIKE '{MADE}%'")
        places = [self.logs.glob(f"dag_id=*/run_id={MADE}*"), self.settings.model_cache.glob(f"{MADE}*")]
        places += [self.staging.glob(f"incidents/{MADE}*"), self.staging.glob(f"outbox/{GROUP}")]
        places += [(batch for batch in self.batches() if (batch / _STAGED).exists())]
        for path in itertools.chain(*places):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def batches(self) -> list[Path]:
        return sorted(self.staging.glob("batches/*/*"))

    def log_files(self) -> list[Path]:
        return [path for path in self.logs.rglob("*") if path.is_file() and not path.is_symlink()]

    def models(self) -> set[str]:
        return {path.name for path in self.settings.model_cache.glob(f"{MADE}*")}

    def ask(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._cursor() as cursor:
            cursor.execute(query, values or None)
            return cursor.fetchall() if cursor.description else []

    def count(self, table: str) -> int:
        """Return the number of rows of this history."""
        return int(self.ask(f"SELECT count(*) FROM {table} WHERE run_id LIKE '{MADE}%'")[0][0])

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        connection = psycopg2.connect(self.url)
        try:
            with connection, connection.cursor() as cursor:
                yield cursor
        finally:
            connection.close()


def _value(table: str, column: str, kind: str) -> str:
    common = {"run_id": "made.run_id", "dag_run_id": "made.id"}
    # What happened in the run is as long before or after its beginning as it was.
    moved = f'one."{column}" + (made.at - origin.run_after)' if kind.startswith("timestamp") else f'one."{column}"'
    return _NEW.get((table, column)) or common.get(column) or moved


def _write(path: Path, content: bytes, then: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    for each in (path, path.parent, path.parent.parent):
        os.utime(each, (then, then))
