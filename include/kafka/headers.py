"""A message's headers, as far as the client can read them."""

from __future__ import annotations

import logging
from operator import methodcaller

from confluent_kafka import Message

from include.kafka.transaction import Headers

log = logging.getLogger(__name__)

# Where the client fails to read a header's name it sets an error and returns a broken list all the same. Calls from C
# notice; a method that is called often enough from Python does not, and the broken list ends the process.
_READ_HEADERS = methodcaller("headers")


def headers_of(message: Message) -> Headers | None:
    """None also where a header's name is not UTF-8, which this client cannot read: that must not stop all messages.

    To be asked once: asked again, a message gives the list that it failed to fill.
    """
    try:
        found: Headers | None = _READ_HEADERS(message)
        return found
    except (SystemError, UnicodeError):
        log.warning(
            "%s/%s/%s: headers left out, a name is not UTF-8", message.topic(), message.partition(), message.offset()
        )
        return None
