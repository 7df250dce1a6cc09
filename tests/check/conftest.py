from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest


@pytest.fixture
def unused_address() -> Iterator[str]:
    """An address at which no server listens, reserved until the test ends."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"
