"""The URL of a DAG run in Airflow's UI."""

from __future__ import annotations

from urllib.parse import quote

from airflow.sdk.configuration import conf


def run_url(dag_id: str, run_id: str) -> str:
    """Return the URL of a DAG run, which begins with the setting `[api] base_url`."""
    base_url = conf.get("api", "base_url", fallback="http://localhost:8080").rstrip("/")
    return f"{base_url}/dags/{quote(dag_id)}/runs/{quote(run_id, safe=':+')}"
