"""From a source to the topic until the source ends or someone stops it, with progress on the way."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from include.producer.delivery import MessageSink
from include.producer.message import PaymentStream

_log = logging.getLogger(__name__)


def produce(source: PaymentStream, delivery: MessageSink) -> str:
    """Returns the final counts. Raises ProducerError where a payment was not delivered."""
    progress = _Progress(source, delivery)
    with stopped_by_signals() as stop:
        try:
            for messages in source.batches(stop):
                delivery.send(messages, stop)
                progress.show()
                if delivery.failed:
                    break
        finally:
            progress.end()
            delivery.close()
    return progress.summary()


@contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set. A second signal of the same kind ends the process at once."""
    stop = threading.Event()

    def on_signal(number: int, _: FrameType | None) -> None:
        stop.set()
        signal.signal(number, before[signal.Signals(number)])

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Progress:
    """On a terminal one line that renews itself, elsewhere a log line now and then, if anything changed."""

    def __init__(self, source: PaymentStream, delivery: MessageSink) -> None:
        self._source = source
        self._delivery = delivery
        self._terminal = sys.stderr.isatty()
        self._period = 1.0 if self._terminal else 10.0
        self._begin = self._shown_at = time.monotonic()
        self._shown = (0, 0, "")
        self._drawn = False

    def show(self) -> None:
        now = time.monotonic()
        if now - self._shown_at < self._period:
            return
        sent, failed, info = self._delivery.sent, self._delivery.failed, self._source.info()
        rate = (sent - self._shown[0]) / (now - self._shown_at)
        text = f"{sent:,} sent, {rate:,.1f}/s, {failed:,} failed; {info}"
        if self._terminal:
            sys.stderr.write(f"\r{text}\x1b[K")
            sys.stderr.flush()
            self._drawn = True
        elif self._shown != (sent, failed, info):
            _log.info("%s", text)
        self._shown = (sent, failed, info)
        self._shown_at = now

    def end(self) -> None:
        if self._drawn:
            sys.stderr.write("\n")

    def summary(self) -> str:
        seconds = time.monotonic() - self._begin
        sent = self._delivery.sent
        rate = sent / seconds if seconds else 0
        unsent = f", {self._delivery.unsent:,} not sent" if self._delivery.unsent else ""
        return (
            f"{sent:,} payments sent in {seconds:,.1f} s ({rate:,.1f}/s), {self._delivery.failed:,} failed{unsent}; "
            f"{self._source.info()}"
        )
