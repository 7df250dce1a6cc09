"""Write one chunk in a thread while the caller prepares the next one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, Self

_Arguments = ParamSpec("_Arguments")


class BackgroundWriter:
    """Run one write at a time, so that at most two chunks are in memory.

    As a context manager it waits for the last write. After an exception it calls `cancel` instead, which may end a
    write that waits for a lock of another process.
    """

    def __init__(self, cancel: Callable[[], object] = lambda: None) -> None:
        self._cancel = cancel
        self._thread = ThreadPoolExecutor(1)
        self._last: Future[object] | None = None

    def submit(self, write: Callable[_Arguments, object], *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> None:
        """Wait for the write before, and start this one. Raise what the write before raised."""
        self.wait()
        self._last = self._thread.submit(write, *args, **kwargs)

    def wait(self) -> None:
        """Wait for the last write. Raise what it raised."""
        if self._last is not None:
            self._last.result()
            self._last = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._thread:
            if kind is None:
                self.wait()
            else:
                self._cancel()
