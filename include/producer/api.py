"""Poll an HTTP API for payments at an interval, and keep every value as the API returns it."""

from __future__ import annotations

import itertools
import logging
import re
import threading
import time
from collections.abc import Iterator

import httpx
import msgspec
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_when_event_set, wait_random_exponential
from tenacity.nap import sleep_using_event

from include.errors import ProducerError, SettingError
from include.payments.columns import COLUMNS
from include.payments.timestamps import date_time_text, parse_unix_time, unix_time
from include.payments.wrapping import is_flat, unwrap
from include.producer.message import CARD, TIME, UNIX_TIME, PaymentMessage, json_list, split_value

_log = logging.getLogger(__name__)

CURRENT_TIME = "current_time"
_TIMEOUT_SECONDS = 10.0
_MAX_BACKOFF_SECONDS = 60.0
_MAX_RETRY_AFTER_SECONDS = 600.0


class _RetriableError(Exception):
    """A request failed and may succeed later. `retry_after` is the server's Retry-After in seconds, if it sent one."""

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class _MalformedError(Exception):
    """A response or a payment in it cannot be read."""


class _SplitResponse(msgspec.Struct):
    columns: list[str]
    data: list[list[msgspec.Raw]]
    index: list[msgspec.Raw] | None = None


class _FlatResponse(msgspec.Struct):
    columns: list[str]
    data: list[msgspec.Raw]
    index: list[msgspec.Raw] | None = None


class ApiPayments:
    """The payments that an HTTP API returns; payments that it returned last time are left out.

    After a failed connection, a status 5xx or 429 the request is repeated until it succeeds or the producer is stopped.
    The constructor raises SettingError if the URL is invalid.
    """

    def __init__(
        self, url: str, *, interval: float, count: int | None = None, max_backoff_seconds: float = _MAX_BACKOFF_SECONDS
    ) -> None:
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            # The error of httpx may quote a part of a password.
            raise SettingError(
                f"{_without_keys(url)!r} is not a URL: give the API's full URL, http://… or https://…"
            ) from error
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise SettingError(f"{_without_keys(url)!r}: give the API's full URL, http://… or https://…")
        self._url = parsed
        # For messages: without the query and the user, which may hold keys and passwords.
        self._name = str(parsed.copy_with(query=None, fragment=None, username=None, password=None))
        self._interval = interval
        self._count = count
        self._backoff = wait_random_exponential(multiplier=0.5, max=max_backoff_seconds)
        self._previous: frozenset[bytes] = frozenset()
        self._numbers = itertools.count()
        self._retries = self._malformed = self._repeated = self._malformed_payments = 0

    def message_lists(self, stop: threading.Event) -> Iterator[list[PaymentMessage]]:
        """Yield the messages of each response, and empty lists meanwhile.

        Raise ProducerError if the API refuses the request, with any status but 429 and 5xx: a retry would not help.
        """
        remaining = self._count
        with httpx.Client(timeout=_TIMEOUT_SECONDS, follow_redirects=True) as client:
            while not stop.is_set() and (remaining is None or remaining > 0):
                begun = time.monotonic()
                messages = self._poll(client, stop)[:remaining]
                yield messages
                if remaining is not None:
                    remaining -= len(messages)
                while (wait := begun + self._interval - time.monotonic()) > 0 and remaining != 0 and not stop.is_set():
                    stop.wait(min(wait, 1.0))
                    yield []

    def status(self) -> str:
        """Return the API's URL, and the counts of retries, responses and payments that were not used."""
        return (
            f"{self._name}: {self._retries:,} retries, {self._malformed:,} malformed and "
            f"{self._repeated:,} repeated responses, {self._malformed_payments:,} malformed payments"
        )

    def _poll(self, client: httpx.Client, stop: threading.Event) -> list[PaymentMessage]:
        retrying = Retrying(
            retry=retry_if_exception_type(_RetriableError),
            wait=self._retry_seconds,
            stop=stop_when_event_set(stop),
            sleep=sleep_using_event(stop),
            before_sleep=self._log_retry,
            reraise=True,
        )
        try:
            body = retrying(self._get, client)
        except _RetriableError:
            return []  # a stop has ended the retries
        try:
            return self._messages(body)
        except _MalformedError as error:
            self._malformed += 1
            _log.warning("%s: malformed response %s: %s", self._name, self._malformed, error)
            return []

    def _get(self, client: httpx.Client) -> bytes:
        try:
            response = client.get(self._url)
        except httpx.TransportError as error:
            raise _RetriableError(f"{type(error).__name__}: {error}") from error
        except httpx.RequestError as error:
            raise ProducerError(f"{self._name}: {error}") from error
        status = f"{response.status_code} {response.reason_phrase}"
        if response.status_code == httpx.codes.TOO_MANY_REQUESTS or response.is_server_error:
            raise _RetriableError(status, _retry_after(response))
        if not response.is_success:
            raise ProducerError(
                f"{self._name} returned {status}: check the URL, and the keys and parameters that the API requires"
            )
        return response.content

    def _retry_seconds(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        retry_after = error.retry_after if isinstance(error, _RetriableError) else None
        return self._backoff(state) if retry_after is None else retry_after

    def _log_retry(self, state: RetryCallState) -> None:
        self._retries += 1
        error = state.outcome.exception() if state.outcome else None
        wait = state.next_action.sleep if state.next_action else 0.0
        _log.warning("%s: %s; attempt %s in %.1f s", self._name, error, state.attempt_number + 1, wait)

    def _messages(self, body: bytes) -> list[PaymentMessage]:
        split = _decode(body)
        rows = [bytes(json_list(values)) for values in split.data]
        # An API returns the same payments again if it has no new ones.
        new_rows = [index for index, row in enumerate(rows) if row not in self._previous]
        self._repeated += bool(rows) and not new_rows
        self._previous = frozenset(rows)
        messages: list[PaymentMessage] = []
        errors: list[str] = []
        for row in new_rows:
            try:
                messages.append(self._message(split, row))
            except _MalformedError as error:
                errors.append(str(error))
        if errors:
            self._malformed_payments += len(errors)
            _log.warning(
                "%s: %s of %s payments are malformed and left out, the first: %s",
                self._name, len(errors), len(new_rows), errors[0],
            )  # fmt: skip
        return messages

    def _message(self, split: _SplitResponse, row: int) -> PaymentMessage:
        values = split.data[row]
        if len(values) != len(split.columns):
            raise _MalformedError(f"a row has {len(values)} values for {len(split.columns)} columns")
        payment: dict[str, bytes | msgspec.Raw] = dict(zip(split.columns, values, strict=True))
        if CURRENT_TIME in payment:
            _set_times(payment)
        known = [name for name in COLUMNS if name in payment]
        names = known + [name for name in payment if name not in COLUMNS]
        number = next(self._numbers)
        index = split.index[row] if split.index and len(split.index) == len(split.data) else b"%d" % number
        row_values = json_list(payment[name] for name in names)
        return PaymentMessage(
            _key(payment.get(CARD)), split_value(msgspec.json.encode(names), bytes(index), row_values)
        )


def _without_keys(url: str) -> str:
    """Return a possibly invalid URL without its query and user, which may hold keys and passwords."""
    return re.sub(r"^([^/]*//)?.*@", r"\1", url.partition("?")[0])


def _decode(body: bytes) -> _SplitResponse:
    try:
        body.decode()
        return _split(unwrap(body) or body)
    except UnicodeDecodeError as error:
        raise _MalformedError("not UTF-8 text") from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise _MalformedError('not JSON in "split" form with `columns` and `data`') from error


def _split(body: bytes) -> _SplitResponse:
    try:
        return msgspec.json.decode(body, type=_SplitResponse)
    except msgspec.ValidationError:
        flat = msgspec.json.decode(body, type=_FlatResponse)
        if not is_flat(flat.data):
            raise
        return _SplitResponse(flat.columns, [flat.data], flat.index)


def _set_times(payment: dict[str, bytes | msgspec.Raw]) -> None:
    """Replace `current_time` of older APIs by the two times of a payment, unless the payment has them."""
    try:
        current_time = parse_unix_time(msgspec.json.decode(payment.pop(CURRENT_TIME)))
    except msgspec.DecodeError:
        current_time = None
    if current_time is None:
        raise _MalformedError(f"`{CURRENT_TIME}` is not a time")
    payment.setdefault(TIME, msgspec.json.encode(date_time_text(current_time)))
    payment.setdefault(UNIX_TIME, b"%d" % unix_time(current_time))


def _key(card: bytes | msgspec.Raw | None) -> bytes | None:
    """Return the card number as text, whether it is a JSON number or string, so that a card has one partition."""
    if card is None or card == b"null":
        return None
    card = bytes(card)
    return msgspec.json.decode(card, type=str).encode() if card.startswith(b'"') else card


def _retry_after(response: httpx.Response) -> float | None:
    """Return the seconds of Retry-After, None without it and for its rare form as a date: then the backoff applies."""
    text = response.headers.get("Retry-After", "")
    return min(float(text), _MAX_RETRY_AFTER_SECONDS) if text.isdecimal() else None
