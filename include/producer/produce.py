"""Send payments from a source to a sink until the source ends or a signal stops it, and show the progress."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from include.producer.delivery import MessageSink
from include.producer.message import PaymentStream

OnProgress = Callable[[str, None], None]
"""Called about once a second with a text. The number of payments is unknown, so the completed share is None."""

_SAMPLE_SECONDS = 1.0


def produce(source: PaymentStream, sink: MessageSink, on_progress: OnProgress = lambda text, share: None) -> str:
    """Send payments until the source ends or a signal stops it, and return the final counts as text.

    Raise ProducerError if a payment was not delivered.
    """
    progress = _Progress(source, sink, on_progress)
    with stop_on_signals() as stop:
        try:
            for messages in source.message_lists(stop):
                sink.send(messages, stop)
                progress.show()
                if sink.failed:
                    break
        finally:
            sink.close()
    return progress.summary()


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Yield an event that SIGINT and SIGTERM set. A second signal of the same kind ends the process at once."""
    stop = threading.Event()

    def on_signal(number: int, _: FrameType | None) -> None:
        stop.set()
        signal.signal(number, handlers[signal.Signals(number)])

    handlers = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


class _Progress:
    """Count what was sent, and show it once a second."""

    def __init__(self, source: PaymentStream, sink: MessageSink, on_progress: OnProgress) -> None:
        self._source = source
        self._sink = sink
        self._on_progress = on_progress
        self._begin = time.monotonic()
        # The time and the number of payments sent, once a second. The rate shown is that of the last ten seconds.
        self._samples = deque([(self._begin, 0)], maxlen=10)

    def show(self) -> None:
        now, sent = time.monotonic(), self._sink.sent
        if now - self._samples[-1][0] < _SAMPLE_SECONDS:
            return
        since, sent_before = self._samples[0]
        self._samples.append((now, sent))
        rate = (sent - sent_before) / (now - since)
        text = f"{sent:,} sent, {rate:,.1f}/s, {self._sink.failed:,} failed; {self._source.status()}"
        self._on_progress(text, None)

    def summary(self) -> str:
        seconds = time.monotonic() - self._begin
        sent = self._sink.sent
        rate = sent / seconds if seconds else 0
        unsent = f", {self._sink.unsent:,} not sent" if self._sink.unsent else ""
        return (
            f"{sent:,} payments sent in {seconds:,.1f} s ({rate:,.1f}/s), {self._sink.failed:,} failed{unsent}; "
            f"{self._source.status()}"
        )
