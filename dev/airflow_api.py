"""Call Airflow's REST API, for the demo, the benchmarks and the tests."""

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
    """Call one Airflow with a login. Methods raise httpx.HTTPError if Airflow does not answer or refuses."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Read address and login from `environment`, the variables of `stack.env`."""
        self._login = {"username": environment["AIRFLOW_USERNAME"], "password": environment["AIRFLOW_PASSWORD"]}
        self._client = httpx.Client(base_url=environment["AIRFLOW_URL"], timeout=30)

    def close(self) -> None:
        """Close the HTTP connections."""
        self._client.close()

    def request(self, method: str, path: str, *, below: str = "/api/v2", **arguments: Any) -> Any:
        """Return the JSON answer to a request, None for an empty one. An expired token is renewed once.

        `below` is the path's prefix: "/ui" is for requests that Airflow's pages make.
        """
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
        """Wait until Airflow has parsed a DAG. Raises httpx.HTTPStatusError after `seconds`."""
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
        """Pause a DAG, or unpause it."""
        self.request("PATCH", f"dags/{dag_id}", json={"is_paused": paused})

    def set_connection(self, name: str, connection: Mapping[str, Any]) -> None:
        """Create or replace a connection in Airflow's database.

        `connection` has the keys of the JSON in a variable AIRFLOW_CONN_….
        """
        body = dict(connection, connection_id=name, extra=json.dumps(connection.get("extra", {})))
        known = self.request("GET", "connections", params={"limit": 1000})["connections"]
        if name in {one["connection_id"] for one in known}:
            self.request("PATCH", f"connections/{name}", json=body)
        else:
            self.request("POST", "connections", json=body)

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> str:
        """Trigger a run and return its id."""
        body = {"logical_date": None, "conf": dict(conf or {})}
        run_id: str = self.request("POST", f"dags/{dag_id}/dagRuns", json=body)["dag_run_id"]
        return run_id

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """Return one run."""
        found: dict[str, Any] = self.request("GET", f"dags/{dag_id}/dagRuns/{quote(run_id, safe='')}")
        return found

    def runs(self, dag_id: str, limit: int = 20) -> list[dict[str, Any]]:
        """Return at most `limit` runs, the newest first."""
        found: list[dict[str, Any]] = self.request(
            "GET", f"dags/{dag_id}/dagRuns", params={"order_by": "-run_after", "limit": limit}
        )["dag_runs"]
        return found

    def wait_for_run(self, dag_id: str, run_id: str, seconds: float = 300) -> dict[str, Any]:
        """Return the run when it has finished. Raises TimeoutError after `seconds`."""
        until, state = time.monotonic() + seconds, "not seen"
        while True:
            # On a busy machine a request can time out; the next one may not.
            with contextlib.suppress(httpx.TimeoutException):
                run = self.run(dag_id, run_id)
                state = run["state"]
                if state in FINISHED:
                    return run
            if time.monotonic() > until:
                raise TimeoutError(f"run {run_id} is still {state} after {seconds:g} s")
            time.sleep(0.3)

    def tasks(self, dag_id: str, run_id: str) -> dict[str, dict[str, Any]]:
        """Return the task instances of a run, by task id."""
        return {task["task_id"]: task for task in self.instances(dag_id, run_id)}

    def instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Every task instance: of a mapped task, one for each shard."""
        path = f"dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances"
        found: list[dict[str, Any]] = self.request("GET", path, params={"limit": 1000})["task_instances"]
        return found

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "counts", map_index: int = -1) -> Any:
        """Return an XCom's value, or None if the task, or this instance of a mapped task, has pushed none."""
        path = f"dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances/{task_id}/xcomEntries/{key}"
        params = {"deserialize": False, "stringify": False, "map_index": map_index}
        try:
            return self.request("GET", path, params=params)["value"]
        except httpx.HTTPStatusError as error:
            if error.response.status_code == httpx.codes.NOT_FOUND:
                return None
            raise
