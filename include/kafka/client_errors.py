"""The errors that librdkafka reports for a client through `error_cb`, and their text for an operator."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from confluent_kafka import KafkaError, KafkaException

from include.errors import ClusterAccessError
from include.kafka.client_config import ClientConfig

# These say only that a call got no response, not why.
_UNSPECIFIC = (KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT, KafkaError._TRANSPORT)
_UNREACHABLE = "check that the broker is running and that the address is correct"
_MISSING_TOPIC = "{topic} does not exist: create it"
# What an operator can do. `describe_error` fills in {topic}.
_HINTS = {
    KafkaError._TRANSPORT: _UNREACHABLE,
    KafkaError._ALL_BROKERS_DOWN: _UNREACHABLE,
    KafkaError._RESOLVE: "check the broker's host name",
    KafkaError._TIMED_OUT: (
        "the broker did not answer in time: check that it is running and that address and security.protocol are correct"
    ),
    KafkaError._AUTHENTICATION: (
        "check the user name and password in the connection kafka_default, or SASL_USERNAME and SASL_PASSWORD if it is "
        "not set"
    ),
    KafkaError._SSL: (
        "check the certificates named in the connection kafka_default, or the machine's authorities if it names none"
    ),
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "the user lacks a right on {topic}: grant it (`fraud check` names it)",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "the user lacks the right Read on the consumer group: grant it",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: (
        "the user lacks the right Write on the transactional id: grant it"
    ),
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "the user lacks a right on the cluster: grant it",
    KafkaError.UNKNOWN_TOPIC_OR_PART: _MISSING_TOPIC,
    KafkaError._UNKNOWN_TOPIC: _MISSING_TOPIC,
    KafkaError.MSG_SIZE_TOO_LARGE: (
        "set max.message.bytes of the output topic and the dead-letter topics to twice the input topic's, because "
        "headers are added"
    ),
    KafkaError._UNKNOWN_PARTITION: "{topic} does not exist or has lost a partition",
}


class _Pollable(Protocol):
    def poll(self, timeout: float) -> object: ...


class ClientErrors:
    """The last ten errors that librdkafka reported for one client. Pass an instance as the client's `error_cb`.

    The exception of a failed call often says only that it timed out or lost its connection. These errors say why.
    """

    def __init__(self, config: ClientConfig) -> None:
        self._config = config
        self._errors: deque[KafkaError] = deque(maxlen=10)

    def __call__(self, error: KafkaError) -> None:
        """Record an error. librdkafka calls this while the client is polled."""
        self._errors.append(error)

    @property
    def last(self) -> KafkaError | None:
        """Return the newest error, or None."""
        return self._errors[-1] if self._errors else None

    def raise_if_permanent(self) -> None:
        """Raise ClusterAccessError after a wrong password or an untrusted certificate: retries do not help."""
        for error in self._errors:
            if error.code() == KafkaError._AUTHENTICATION or _is_untrusted(error):
                user = self._config.get("sasl.username")
                as_user = f" as {user}" if user and error.code() == KafkaError._AUTHENTICATION else ""
                raise ClusterAccessError(f"cannot connect to Kafka{as_user}: {describe_error(error, self._config)}")

    def cause_of(self, error: KafkaError) -> KafkaError:
        """Return why a call failed with `error`: if its code is in _UNSPECIFIC, a recorded error, else `error` itself.

        The recorded error is the oldest one whose code is not in _UNSPECIFIC; without one, the oldest that is not
        _ALL_BROKERS_DOWN; without that, `error`.
        """
        if error.code() not in _UNSPECIFIC:
            return error
        causes = [cause for cause in self._errors if cause.code() != KafkaError._ALL_BROKERS_DOWN]
        return next((cause for cause in causes if cause.code() not in _UNSPECIFIC), causes[0] if causes else error)

    @contextmanager
    def raise_cause(self, client: _Pollable) -> Iterator[None]:
        """Raise ClusterAccessError, or KafkaException with the cause, if a blocking call of `client` fails."""
        try:
            yield
        except KafkaException as error:
            # librdkafka delivers the errors that it has queued only when the client is polled.
            client.poll(0)
            self.raise_if_permanent()
            raise KafkaException(self.cause_of(error.args[0])) from error


def describe_error(error: KafkaError, config: ClientConfig, topic: str = "the topic") -> str:
    """Return one line: the error's text and name, the bootstrap servers, and what the operator can do.

    The last may be about a topic, and then contains `topic`: a text that says which one.
    """
    hint = _HINTS.get(KafkaError._SSL if _is_untrusted(error) else error.code())
    line = f"{error.str()} [{error.name()}] at {config.get('bootstrap.servers')}"
    return f"{line}: {hint.format(topic=topic)}" if hint else line


def _is_untrusted(error: KafkaError) -> bool:
    """Return whether a certificate was rejected: librdkafka 2.16 reports that as _SSL, and sometimes as _TRANSPORT."""
    return "certificate verify failed" in error.str()
