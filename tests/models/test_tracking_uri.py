from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.entities import Run, RunData, RunInfo

from include.errors import SettingError
from include.models.artifact_uri import redact
from include.models.mlflow_client import ModelStore
from include.models.tracking_uri import registry_uri, tracking_uri, without_credentials
from include.training.tracking import mlflow_session, page_urls


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("mlflow.example.com:5000", "=mlflow.example.com:5000: it has no scheme: give http://mlflow.example.com:5000"),
        ("127.0.0.1:5000", "=127.0.0.1:5000: it has no scheme"),
        ("localhost:5000/", "=localhost:5000/: it has no scheme"),
        ("ann:se/cret@mlflow:5000", "=mlflow:5000: it has no scheme: give http://mlflow:5000"),
        ('"http://ann:secret@mlflow:5000"', '="http://mlflow:5000": the value itself has quotes around it'),
        ("'http://mlflow:5000'", "='http://mlflow:5000': the value itself has quotes around it"),
        ("“http://mlflow:5000”", "=“http://mlflow:5000”: the value itself has quotes around it"),
        ("http:/mlflow:5000", "=http:/mlflow:5000: it names no host"),
        ("http://", "=http://: it names no host"),
        ("sqlite://", "=sqlite://: the path '' is relative"),
        ("http//mlflow:5000", "=http//mlflow:5000: it is not a server address"),
        ("http://ann:secret/@mlflow:5000", "=http://mlflow:5000: it is not a valid address"),
        (
            "http://mlflow:5000/#/experiments",
            "=http://mlflow:5000/#/experiments: the part from # on is a page of MLflow's user interface, "
            "not an address of the server: give http://mlflow:5000$",
        ),
        ("http://ann:secret@mlflow:5000/ui/#/models", "=.*: the part from # .*: give http://mlflow:5000/ui$"),
        ("https://mlflow/#", "=https://mlflow/#: the part from # .*: give https://mlflow$"),
        ("http://ann:12#secret@mlflow:5000", "=http://mlflow:5000: it has a # in it: write a # in a password as %23"),
        ("/no/such/folder", "=/no/such/folder: the folder /no/such/folder does not exist"),
        ("file:///no/such/folder", "=file:///no/such/folder: the folder /no/such/folder does not exist"),
        ("mlruns", "=mlruns: it is not a server address .* relative"),
        ("mlruns/", "=mlruns/: it is not a server address"),
        ("./mlruns", "=./mlruns: it is not a server address .* relative"),
        (
            "sqlite:///mlflow.db",
            r"=sqlite:///mlflow.db: the path 'mlflow.db' is relative.*sqlite:////srv/mlflow/mlflow.db",
        ),
        ("sqlite:////no/such/mlflow.db", "=sqlite:////no/such/mlflow.db: the folder /no/such does not exist"),
    ],
)
def test_invalid_address_error_names_the_mistake(monkeypatch: pytest.MonkeyPatch, uri: str, message: str) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        monkeypatch.setenv(name, uri)
        for use in (ModelStore, lambda: mlflow_session().__enter__()):
            with pytest.raises(SettingError, match=f"{name}{message}") as caught:
                use()  # type: ignore[operator]
            assert "secret" not in str(caught.value)
            assert "cret@" not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        "http://mlflow:5000",
        "https://mlflow.example.com/mlflow",
        "http://[::1]:5000",
        "http://ann:secret@mlflow",
        "databricks",
        "databricks://profile",
        "arn:aws:sagemaker:eu-central-1:000000000000:mlflow-tracking-server/fraud",
        "postgresql+psycopg2://mlflow@127.0.0.1/mlflow",
        "sqlite:////tmp/mlflow.db",
        "/tmp",
        "file:///tmp",
    ],
)
def test_other_valid_addresses_are_unchanged(monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f" {uri} ")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", uri)
    assert (tracking_uri(), registry_uri()) == (uri, uri)


def test_without_credentials_removes_the_login_only(tmp_path: Path) -> None:
    for uri in (
        "sqlite:////srv/a@b.db",
        "sqlite:///mlflow.db",
        "/srv/mlruns",
        "file:///srv/x",
        "https://h:5/x?a=b",
        "http://h:5/",
    ):
        assert without_credentials(uri) == uri
    assert without_credentials("http://ann:p@ss/w@rd@mlflow:5000/") == "http://mlflow:5000/"
    assert without_credentials("postgresql://ann:secret@h/db?password=secret&a=b") == "postgresql://h/db?password=…&a=b"


def test_page_url_has_one_slash_after_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:secret@mlflow:5000/")
    run = Run(RunInfo("a" * 32, "1", "ann", "FINISHED", 0, 1, "active"), RunData())
    page = f"http://mlflow:5000/#/experiments/1/runs/{'a' * 32}"
    assert ModelStore().run_url(run) == page
    assert page_urls("http://ann:secret@mlflow:5000/", "1", "a" * 32, "fraud", "2")[0] == page


def test_error_keeps_the_slash_of_the_address_and_hides_its_login() -> None:
    text = "http://ann:secret@mlflow:5000/api/2.0/mlflow: connection refused"
    assert redact(text, "http://ann:secret@mlflow:5000/") == "http://mlflow:5000/api/2.0/mlflow: connection refused"
