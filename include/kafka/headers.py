"""The headers of a message, as far as confluent-kafka can read them."""

from __future__ import annotations

import logging
from operator import methodcaller

from confluent_kafka import Message

log = logging.getLogger(__name__)

# Name and value.
Headers = list[tuple[str, str | bytes | None]]

# confluent-kafka sets an error and still returns an incomplete list if a header's name is not UTF-8. A call from C, as
# methodcaller makes it, raises that error. A method call that Python has specialized does not, and the list ends the
# process.
_READ_HEADERS = methodcaller("headers")


def headers_of(message: Message) -> Headers | None:
    """Return the headers, None if there are none or a name is not UTF-8: one such message must not stop the others.

    Call it once per message: a second call returns the incomplete list.
    """
    try:
        headers: Headers | None = _READ_HEADERS(message)
        return headers
    except (SystemError, UnicodeError):
        log.warning(
            "%s/%s/%s: its headers are left out, because a name is not UTF-8",
            *(message.topic(), message.partition(), message.offset()),
        )
        return None
