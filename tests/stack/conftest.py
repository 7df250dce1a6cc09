"""Stacks of a few parts, each in a home of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.stack import Stack


@pytest.fixture
def small_stack(tmp_path: Path) -> Iterator[Stack]:
    """A stack that is not started. Processes that the test started in its home are ended."""
    stack = Stack(tmp_path / "home")
    yield stack
    stack.down()
