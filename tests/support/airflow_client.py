"""Airflow's REST API, as a test needs it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx


class AirflowClient:
    """Paths are relative to /api/v2; an answer that is an error raises with its text."""

    def __init__(self, url: str, username: str, password: str) -> None:
        self.url = url
        self._login = {"username": username, "password": password}
        self._http = httpx.Client(base_url=url, timeout=30)
        self._token = ""

    def get(self, path: str, **parameters: Any) -> Any:
        return self._call("GET", path, params=parameters)

    def post(self, path: str, body: Any) -> Any:
        return self._call("POST", path, json=body)

    def patch(self, path: str, body: Any) -> Any:
        return self._call("PATCH", path, json=body)

    def delete(self, path: str) -> Any:
        return self._call("DELETE", path)

    def trigger(self, dag_id: str, conf: dict[str, Any] | None = None) -> str:
        """The id of the new run."""
        run = self.post(f"/dags/{dag_id}/dagRuns", {"logical_date": None, "conf": conf or {}})
        return str(run["dag_run_id"])

    def wait_for_run(self, dag_id: str, run_id: str, seconds: float = 180) -> dict[str, Any]:
        """The run, once it succeeded or failed."""
        run: dict[str, Any] = self.wait_for(
            lambda: self.get(f"/dags/{dag_id}/dagRuns/{run_id}"),
            lambda run: run["state"] in {"success", "failed"},
            seconds,
        )
        return run

    def wait_for(self, look: Callable[[], Any], good: Callable[[Any], bool], seconds: float = 60) -> Any:
        deadline = time.monotonic() + seconds
        while not good(seen := look()):
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {seconds:.0f} s; the last answer was {seen}")
            time.sleep(0.2)
        return seen

    def close(self) -> None:
        self._http.close()

    def _call(self, method: str, path: str, **arguments: Any) -> Any:
        if not self._token:
            self._token = self._answer(self._http.post("/auth/token", json=self._login))["access_token"]
        headers = {"Authorization": f"Bearer {self._token}"}
        answer = self._http.request(method, f"/api/v2{path}", headers=headers, **arguments)
        if answer.status_code == 401:  # a token lives for a day, the stack of a developer longer
            self._token = ""
        return self._answer(answer)

    @staticmethod
    def _answer(answer: httpx.Response) -> Any:
        if answer.is_error:
            raise AssertionError(f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text}")
        return answer.json() if answer.content else None
