"""Run the services that the pipeline needs as processes on this machine: the local stack."""

from __future__ import annotations

from dev.stack.control import PartStatus, Stack
from dev.stack.home import Options
from dev.stack.stack_errors import StackError

__all__ = ["Options", "PartStatus", "Stack", "StackError"]
