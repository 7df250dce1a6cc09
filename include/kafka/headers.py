"""Reads the headers of a message, or ignores them all if confluent-kafka cannot decode a header's name."""

from __future__ import annotations

import logging
from operator import methodcaller

from confluent_kafka import Message

log = logging.getLogger(__name__)

# Name and value.
Headers = list[tuple[str, str | bytes | None]]

# If a header's name is not UTF-8, confluent-kafka sets an error but still returns a list, which is incomplete. A call
# from C, as methodcaller makes it, raises that error. `message.headers()` in a loop, which Python optimizes, does not
# raise it, and the process crashes when it uses the list.
_READ_HEADERS = methodcaller("headers")


def headers_of(message: Message) -> Headers | None:
    """Return the headers, None if there are none or a name is not UTF-8, which is logged and does not stop a batch.

    Call it once per message: a second call returns the incomplete list.
    """
    try:
        headers: Headers | None = _READ_HEADERS(message)
        return headers
    except (SystemError, UnicodeError):
        log.warning(
            "%s/%s/%s: its headers are ignored, because a header name is not UTF-8",
            *(message.topic(), message.partition(), message.offset()),
        )
        return None
