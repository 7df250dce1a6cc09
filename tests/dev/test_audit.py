"""dev/audit.sh with a server that answers as the OSV database does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RANGE = {"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "9.9"}]}


def advisory(name: str) -> dict[str, Any]:
    affected = {"package": {"ecosystem": "PyPI", "name": name}, "ranges": [RANGE]}
    return {"id": "PYSEC-2026-1", "published": "2026-01-01T00:00:00Z", "summary": "an example", "affected": [affected]}


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Yield the names of vulnerable packages; a test adds some."""
    vulnerable: set[str] = set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name = query["package"]["name"]
            body = json.dumps({"vulns": [advisory(name)]} if name in vulnerable else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PIP_AUDIT_OSV_URL", f"http://127.0.0.1:{server.server_port}")
        yield vulnerable
        server.shutdown()


@pytest.fixture
def audit(tmp_path: Path) -> Callable[[], subprocess.CompletedProcess[str]]:
    lock = tmp_path / "requirements.txt"
    lock.write_text("certifi==2026.1.1\n")
    yesterday = time.time() - 24 * 3600
    os.utime(lock, (yesterday, yesterday))
    pip_audit = Path(sys.executable).with_name("pip-audit")
    command = [ROOT / "dev" / "audit.sh", pip_audit, tmp_path / "clean", lock]
    return lambda: subprocess.run(command, capture_output=True, text=True)


def test_a_vulnerability_fails_and_is_named(
    database: set[str], audit: Callable[[], subprocess.CompletedProcess[str]]
) -> None:
    database |= {"jinja2", "certifi"}
    done = audit()
    assert done.returncode == 1
    assert re.search(r"^certifi +2026\.1\.1 +PYSEC-2026-1 +9\.9$", done.stdout, re.MULTILINE)


def test_an_answer_without_vulnerabilities_is_good_for_a_day_and_for_these_versions(
    database: set[str], audit: Callable[[], subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    database.add("jinja2")
    assert audit().returncode == 0
    database.add("certifi")
    done = audit()
    assert (done.returncode, done.stdout) == (0, "audit: nothing known, less than a day ago\n")
    (tmp_path / "requirements.txt").write_text("certifi==2026.1.2\n")
    assert audit().returncode == 1


@pytest.mark.parametrize("answers", [True, False])
def test_a_database_that_is_unreachable_or_empty_is_skipped(
    database: set[str],
    audit: Callable[[], subprocess.CompletedProcess[str]],
    monkeypatch: pytest.MonkeyPatch,
    answers: bool,
) -> None:
    if not answers:
        monkeypatch.setenv("PIP_AUDIT_OSV_URL", "http://127.0.0.1:9")
    done = audit()
    assert (done.returncode, done.stdout) == (0, "audit: the database of vulnerabilities is not reachable: skipped\n")
