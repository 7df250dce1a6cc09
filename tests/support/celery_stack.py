"""A stack with two Celery workers, one of which a test may destroy with its disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3

from dev.stack import Options, Stack
from dev.stack.worker import WORKERS
from tests.support.breakpoint import Breakpoint, install_breakpoints, write_breakpoints
from tests.support.fault_stack import FaultStack
from tests.support.leaks import require_no_leaks
from tests.support.waiting import wait_until

NAMES = tuple(worker.name for worker in WORKERS)


class CeleryStack(FaultStack):
    def owed_reports(self) -> list[str]:
        bucket, _, prefix = self.env["FRAUD_STAGING_URL"].removeprefix("s3://").partition("/")
        client = boto3.client(
            "s3",
            endpoint_url=self.env["AWS_ENDPOINT_URL_S3"],
            region_name=self.env["AWS_REGION"],
            aws_access_key_id=self.env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.env["AWS_SECRET_ACCESS_KEY"],
        )
        found = client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/outbox/").get("Contents", [])
        names = [entry["Key"].rpartition("/")[2] for entry in found]
        return [name for name in names if name]  # a folder shows itself as well

    @contextmanager
    def stopping_at(self, point: str, times: int = 1) -> Iterator[Breakpoints]:
        """Set a breakpoint on both workers; the first task to reach it stops."""
        breakpoints = Breakpoints(self.home)
        breakpoints.set(point, times)
        try:
            yield breakpoints
        finally:
            breakpoints.clear()

    def lose(self, worker: str) -> None:
        """Kill every process of a worker, and delete its disk."""
        self.kill(worker)
        shutil.rmtree(self.home / worker)

    def recover(self) -> None:
        for name in NAMES:
            write_breakpoints(self.home / name)
        super().recover()


class Breakpoints:
    def __init__(self, home: Path) -> None:
        self._each = {name: Breakpoint(home / name) for name in NAMES}

    def set(self, point: str, times: int) -> None:
        for one in self._each.values():
            one.set(point, times)

    def wait(self) -> str:
        """Wait for a stopped task, return its worker, and remove the breakpoint from the other one."""

        def stopped_worker() -> str | None:
            return next((name for name, one in self._each.items() if one.stopped_process()), None)

        found: str = wait_until(stopped_worker, "no task reached the breakpoint", 180)
        for name, one in self._each.items():
            if name != found:
                one.clear()
        return found

    def process(self, worker: str) -> int:
        return self._each[worker].wait()

    def clear(self) -> None:
        for one in self._each.values():
            one.clear()


@contextmanager
def open_celery_stack(home: Path) -> Iterator[CeleryStack]:
    """Yield the stack in `home`. Start it unless it runs; stop it if it was started here. Tests trigger its DAG."""
    own = Stack(home, Options(celery=True))
    started = not own.is_up()
    airflow = home / "airflow"
    airflow.mkdir(parents=True, exist_ok=True)
    home.chmod(0o700)
    (airflow / "by-hand").touch()
    install_breakpoints(own)
    for name in NAMES:
        write_breakpoints(home / name)
    try:
        if started:
            own.up(leave=False)
        live = CeleryStack(own)
        live.recover()
        yield live
        live.close()
        if started:
            require_no_leaks(live)
    finally:
        if started:
            own.down()
