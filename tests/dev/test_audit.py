"""Against a server that answers as the database does."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from dev.checks import audit

RANGE = {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "9.9"}]}


def advisory(name: str) -> dict[str, Any]:
    affected = {"package": {"ecosystem": "PyPI", "name": name}, "ranges": [RANGE]}
    return {"id": "PYSEC-2026-1", "published": "2026-01-01T00:00:00Z", "summary": "a hole", "affected": [affected]}


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Names of the packages that have a hole, to add to."""
    holes: set[str] = set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name = query["package"]["name"]
            body = json.dumps({"vulns": [advisory(name)]} if name in holes else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AUDIT_OSV_URL", f"http://127.0.0.1:{server.server_port}")
        yield holes
        server.shutdown()


@pytest.fixture
def ask(tmp_path: Path) -> Callable[[], int]:
    lock = tmp_path / "requirements.txt"
    lock.write_text("certifi==2026.1.1\n")
    return lambda: audit.main((lock,), tmp_path / "clean")


def test_a_finding_fails_and_is_named(
    database: set[str], ask: Callable[[], int], capsys: pytest.CaptureFixture[str]
) -> None:
    database |= {"jinja2", "certifi"}
    assert ask() == 1
    assert "audit: certifi==2026.1.1 PYSEC-2026-1 mended in 9.9" in capsys.readouterr().err


def test_nothing_known_is_asked_once_a_day(
    database: set[str], ask: Callable[[], int], capsys: pytest.CaptureFixture[str]
) -> None:
    database.add("jinja2")
    assert ask() == 0
    assert capsys.readouterr().out == "audit: nothing known of 1 packages\n"
    database.add("certifi")
    assert ask() == 0
    assert "less than a day ago" in capsys.readouterr().out


@pytest.mark.parametrize("knows_nothing", [True, False])
def test_what_cannot_be_asked_is_skipped_and_says_so(
    database: set[str],
    ask: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    knows_nothing: bool,
) -> None:
    if not knows_nothing:
        monkeypatch.setenv("AUDIT_OSV_URL", "http://127.0.0.1:9")
    assert ask() == 0
    assert capsys.readouterr().out == "audit: the database of vulnerabilities is not reachable: skipped\n"
