"""A small client of Airflow's REST API, for the demo and the tests."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx

FINISHED = ("success", "failed")


class AirflowApi:
    """Raises httpx.HTTPError where Airflow does not answer or refuses."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """`environment`: what `.local/stack.env` holds."""
        self._login = {"username": environment["AIRFLOW_USERNAME"], "password": environment["AIRFLOW_PASSWORD"]}
        self._client = httpx.Client(base_url=environment["AIRFLOW_URL"], timeout=30)

    def close(self) -> None:
        self._client.close()

    def request(self, method: str, path: str, *, below: str = "/api/v2", **arguments: Any) -> Any:
        """`below`: "/ui" for what Airflow's pages ask the server. A token that has expired is renewed once."""
        for fresh in (False, True):
            if fresh or "Authorization" not in self._client.headers:
                token = self._client.post("/auth/token", json=self._login).raise_for_status().json()["access_token"]
                self._client.headers["Authorization"] = f"Bearer {token}"
            answer = self._client.request(method, f"{below}/{path}", **arguments)
            if answer.status_code != httpx.codes.UNAUTHORIZED:
                break
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def wait_for_dag(self, dag_id: str, seconds: float = 120) -> None:
        """A new Airflow needs a moment to parse its DAGs."""
        until = time.monotonic() + seconds
        while True:
            try:
                self.request("GET", f"dags/{dag_id}")
                return
            except httpx.HTTPStatusError as error:
                if error.response.status_code != httpx.codes.NOT_FOUND or time.monotonic() > until:
                    raise
            time.sleep(0.5)

    def pause(self, dag_id: str, paused: bool) -> None:
        self.request("PATCH", f"dags/{dag_id}", json={"is_paused": paused})

    def set_connection(self, name: str, connection: Mapping[str, Any]) -> None:
        """`connection`: as JSON in a variable AIRFLOW_CONN_… has it. Kept in Airflow's database, made or replaced."""
        body = dict(connection, connection_id=name, extra=json.dumps(connection.get("extra", {})))
        known = self.request("GET", "connections", params={"limit": 1000})["connections"]
        if name in {one["connection_id"] for one in known}:
            self.request("PATCH", f"connections/{name}", json=body)
        else:
            self.request("POST", "connections", json=body)

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        """The new run's id."""
        body = {"logical_date": None, "conf": dict(conf or {})}
        run_id: str = self.request("POST", f"dags/{dag_id}/dagRuns", json=body)["dag_run_id"]
        return run_id

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.request("GET", f"dags/{dag_id}/dagRuns/{quote(run_id, safe='')}")
        return found

    def runs(self, dag_id: str, limit: int = 20) -> list[dict[str, Any]]:
        """The newest first."""
        found: list[dict[str, Any]] = self.request(
            "GET", f"dags/{dag_id}/dagRuns", params={"order_by": "-run_after", "limit": limit}
        )["dag_runs"]
        return found

    def wait_for_run(self, dag_id: str, run_id: str, seconds: float = 300) -> dict[str, Any]:
        """The finished run. Raises TimeoutError."""
        until, state = time.monotonic() + seconds, "not seen"
        while True:
            # A busy machine may let a question wait for longer than a client does: the next one is as good.
            with contextlib.suppress(httpx.TimeoutException):
                run = self.run(dag_id, run_id)
                state = run["state"]
                if state in FINISHED:
                    return run
            if time.monotonic() > until:
                raise TimeoutError(f"run {run_id} is still {state} after {seconds:g} s")
            time.sleep(0.3)

    def tasks(self, dag_id: str, run_id: str) -> dict[str, dict[str, Any]]:
        """Task instances by task id: of a mapped task, one of them."""
        return {task["task_id"]: task for task in self.instances(dag_id, run_id)}

    def instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Every task instance: of a mapped task, one for each shard."""
        path = f"dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances"
        found: list[dict[str, Any]] = self.request("GET", path, params={"limit": 1000})["task_instances"]
        return found

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "counts", map_index: int = -1) -> Any:
        """None where the task, or this instance of a mapped one, has pushed nothing under this key."""
        path = f"dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances/{task_id}/xcomEntries/{key}"
        params = {"deserialize": False, "stringify": False, "map_index": map_index}
        try:
            return self.request("GET", path, params=params)["value"]
        except httpx.HTTPStatusError as error:
            if error.response.status_code == httpx.codes.NOT_FOUND:
                return None
            raise
