"""The local stack: the real services the pipeline needs, as processes on loopback."""

from __future__ import annotations

from dev.stack.control import PartStatus, Stack
from dev.stack.errors import StackError

__all__ = ["PartStatus", "Stack", "StackError"]
