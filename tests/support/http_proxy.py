"""A real HTTP server in front of another one: it counts requests, and answers some paths itself."""

from __future__ import annotations

import contextlib
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Proxy:
    address: str
    requests: list[str] = field(default_factory=list)


@contextlib.contextmanager
def proxy(target: str, answers: Mapping[str, tuple[int, str]] | None = None) -> Iterator[Proxy]:
    """`answers`: status and body for requests that hold a text in their path and content, without blanks."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            front.requests.append(f"{self.command} {self.path.split('?')[0]}")
            asked = self.path + "".join(body.decode(errors="replace").split())
            for part, (status, text) in (answers or {}).items():
                if part in asked:
                    self.answer(status, text.encode(), "application/json" if text.startswith("{") else "text/plain")
                    return
            passed = {name: value for name, value in self.headers.items() if name.lower() in ("content-type", "accept")}
            request = urllib.request.Request(target + self.path, body or None, passed, method=self.command)
            try:
                with urllib.request.urlopen(request, timeout=60) as found:
                    self.answer(found.status, found.read(), found.headers.get("Content-Type", ""))
            except urllib.error.HTTPError as error:
                with error:
                    self.answer(error.code, error.read(), error.headers.get("Content-Type", ""))

        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

        def answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        front = Proxy(f"http://127.0.0.1:{listener.server_port}")
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        try:
            yield front
        finally:
            listener.shutdown()
