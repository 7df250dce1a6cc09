"""The local stack: the real services the pipeline needs, as processes on loopback."""

from __future__ import annotations

from dev.stack.control import PartStatus, Stack
from dev.stack.errors import StackError
from dev.stack.home import Options

__all__ = ["Options", "PartStatus", "Stack", "StackError"]
