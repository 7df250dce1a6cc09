"""Write one chunk in a thread while the caller prepares the next one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, Self

_Arguments = ParamSpec("_Arguments")


class BackgroundWriter:
    """Run one write at a time, so that at most two chunks are in memory.

    The context manager ends when the last write has ended, and raises what that raised. After an exception in its block
    it first calls `cancel`, which may stop a write that waits for another process, and ignores the write's error.
    """

    def __init__(self, cancel: Callable[[], object] = lambda: None) -> None:
        self._cancel = cancel
        self._executor = ThreadPoolExecutor(1)
        self._last: Future[object] | None = None

    def submit(self, write: Callable[_Arguments, object], *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> None:
        """Wait for the write before, and start this one. Raise what the write before raised."""
        self.wait()
        self._last = self._executor.submit(write, *args, **kwargs)

    def wait(self) -> None:
        """Wait for the last write. Raise what it raised."""
        if self._last is not None:
            self._last.result()
            self._last = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._executor:
            if kind is None:
                self.wait()
            else:
                self._cancel()
