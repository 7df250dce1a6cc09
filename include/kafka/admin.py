"""The admin client of confluent-kafka, with exceptions that say why a connection fails."""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from include.errors import SettingError
from include.kafka.client_config import CONFIG_SOURCES, ClientConfig, shared_config
from include.kafka.client_errors import ClientErrors

_Result = TypeVar("_Result")

_POLL_SECONDS = 0.5


class Admin(AdminClient):
    """An admin client. Raise SettingError if librdkafka rejects the configuration."""

    def __init__(self, config: ClientConfig) -> None:
        self._errors = ClientErrors(config)
        client_config: Any = {
            **shared_config(config),
            "socket.connection.setup.timeout.ms": 10_000,
            "error_cb": self._errors,
        }
        try:
            super().__init__(client_config)
        except KafkaException as error:
            raise SettingError(
                f"the Kafka client cannot be created: {error.args[0].str()}: check {CONFIG_SOURCES}"
            ) from error

    def raise_cause(self) -> AbstractContextManager[None]:
        """Return a context in which a failed blocking call, such as `list_topics`, raises its cause.

        See `ClientErrors.raise_cause`.
        """
        return self._errors.raise_cause(self)

    def wait_for(self, future: Future[_Result]) -> _Result:
        """Return the result of a request. Raise KafkaException with the cause if it fails.

        Raise ClusterAccessError as soon as the broker rejects the connection, without waiting for the timeout.
        """
        with self.raise_cause():
            while True:
                try:
                    return future.result(timeout=_POLL_SECONDS)
                except TimeoutError:
                    self.poll(0)
                    self._errors.raise_if_permanent()
