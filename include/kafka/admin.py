"""What librdkafka says of its connections while a call waits: the call itself would only say that it timed out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TypeVar

from confluent_kafka import KafkaError as Reason
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from include.errors import KafkaAccessError, SettingError
from include.kafka.client_config import ClientConfig, common_settings, explanation, is_untrusted

_Answer = TypeVar("_Answer")

_LISTENS_EVERY = 0.5
_VAGUE = (Reason._ALL_BROKERS_DOWN, Reason._TIMED_OUT, Reason._TRANSPORT)


class _Polled(Protocol):
    def poll(self, timeout: float) -> object: ...


class ClientErrors:
    """The `error_cb` of one client."""

    def __init__(self, client: ClientConfig) -> None:
        self._client = client
        self._errors: deque[Reason] = deque(maxlen=10)

    def __call__(self, error: Reason) -> None:
        self._errors.append(error)

    @property
    def last(self) -> Reason | None:
        return self._errors[-1] if self._errors else None

    def check(self) -> None:
        """Raises KafkaAccessError where waiting is of no use: a wrong password, a certificate that is not trusted."""
        for error in self._errors:
            if error.code() == Reason._AUTHENTICATION or is_untrusted(error):
                user = self._client.get("sasl.username")
                as_user = f" as {user}" if user and error.code() == Reason._AUTHENTICATION else ""
                raise KafkaAccessError(f"kafka_default is refused{as_user}: {explanation(error, self._client)}")

    def precise(self, error: Reason) -> Reason:
        """What lies behind an error of a call, where more than that was heard."""
        if error.code() not in _VAGUE:
            return error
        heard = [one for one in self._errors if one.code() != Reason._ALL_BROKERS_DOWN]
        return next((one for one in heard if one.code() not in _VAGUE), heard[0] if heard else error)

    @contextmanager
    def listening(self, to: _Polled) -> Iterator[None]:
        """For a call that waits without telling what it hears; raises as `check`, and else the precise error."""
        try:
            yield
        except KafkaException as error:
            # What was heard is told only now.
            to.poll(0)
            self.check()
            raise KafkaException(self.precise(error.args[0])) from error


class Admin(AdminClient):
    """Raises SettingError where the connection's settings are none that librdkafka knows."""

    def __init__(self, client: ClientConfig) -> None:
        self._heard = ClientErrors(client)
        settings: Any = {**common_settings(client), "socket.connection.setup.timeout.ms": 10_000}
        try:
            settings["error_cb"] = self._heard
            super().__init__(settings)
        except KafkaException as error:
            raise SettingError(f"the connection kafka_default cannot be used: {error.args[0].str()}") from error

    def listening(self) -> AbstractContextManager[None]:
        """Around a call that has no future."""
        return self._heard.listening(self)

    def answer(self, future: Future[_Answer]) -> _Answer:
        with self.listening():
            while True:
                try:
                    return future.result(timeout=_LISTENS_EVERY)
                except TimeoutError:
                    self.poll(0)
                    self._heard.check()
