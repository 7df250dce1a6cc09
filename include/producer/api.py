"""A payments HTTP API as a source: polled at an interval, every value passed on as it came."""

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
from include.producer.message import CARD, TIME, UNIX_TIME, Message, json_list, split_value

_log = logging.getLogger(__name__)

CURRENT_TIME = "current_time"
_TIMEOUT_SECONDS = 10.0
_LONGEST_WAIT = 60.0
_LONGEST_RETRY_AFTER = 600.0


class _NoAnswerError(Exception):
    """Worth another try; `wait` is what the server asked for."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class _MalformedError(Exception):
    pass


class _SplitResponse(msgspec.Struct):
    columns: list[str]
    data: list[list[msgspec.Raw]]
    index: list[msgspec.Raw] | None = None


class _FlatResponse(msgspec.Struct):
    columns: list[str]
    data: list[msgspec.Raw]
    index: list[msgspec.Raw] | None = None


class ApiPayments:
    """Connection failures, 5xx and 429 are tried again until it works or the producer is stopped.

    Raises ProducerError where the API refuses the request itself (any other status): no retry mends that.
    """

    def __init__(
        self, url: str, *, interval: float, count: int | None = None, longest_wait: float = _LONGEST_WAIT
    ) -> None:
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            # Its own words may quote a part of a password.
            raise SettingError(f"{_without_keys(url)!r} is not a URL") from error
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise SettingError(f"{_without_keys(url)!r}: give the API's full address, http://… or https://…")
        self._url = parsed
        # In messages without the query and the user's part, where keys and passwords are.
        self._name = str(parsed.copy_with(query=None, fragment=None, username=None, password=None))
        self._interval = interval
        self._count = count
        self._backoff = wait_random_exponential(multiplier=0.5, max=longest_wait)
        self._previous: frozenset[bytes] = frozenset()
        self._numbers = itertools.count()
        self._retries = self._malformed = self._repeated = self._left_out = 0

    def batches(self, stop: threading.Event) -> Iterator[list[Message]]:
        left = self._count
        with httpx.Client(timeout=_TIMEOUT_SECONDS, follow_redirects=True) as client:
            while not stop.is_set() and (left is None or left > 0):
                begun = time.monotonic()
                messages = self._poll(client, stop)[:left]
                yield messages
                if left is not None:
                    left -= len(messages)
                while (wait := begun + self._interval - time.monotonic()) > 0 and left != 0 and not stop.is_set():
                    stop.wait(min(wait, 1.0))
                    yield []

    def info(self) -> str:
        return (
            f"{self._name}: {self._retries:,} retries, {self._malformed:,} malformed and "
            f"{self._repeated:,} repeated answers, {self._left_out:,} malformed payments"
        )

    def _poll(self, client: httpx.Client, stop: threading.Event) -> list[Message]:
        retrying = Retrying(
            retry=retry_if_exception_type(_NoAnswerError),
            wait=self._wait,
            stop=stop_when_event_set(stop),
            sleep=sleep_using_event(stop),
            before_sleep=self._say,
            reraise=True,
        )
        try:
            body = retrying(self._get, client)
        except _NoAnswerError:
            return []  # only a stop ends the retries
        try:
            return self._messages(body)
        except _MalformedError as error:
            self._malformed += 1
            _log.warning("%s: malformed answer %s: %s", self._name, self._malformed, error)
            return []

    def _get(self, client: httpx.Client) -> bytes:
        try:
            response = client.get(self._url)
        except httpx.TransportError as error:
            raise _NoAnswerError(f"{type(error).__name__}: {error}") from error
        except httpx.RequestError as error:
            raise ProducerError(f"{self._name}: {error}") from error
        status = f"{response.status_code} {response.reason_phrase}"
        if response.status_code == httpx.codes.TOO_MANY_REQUESTS or response.is_server_error:
            raise _NoAnswerError(status, _retry_after(response))
        if not response.is_success:
            raise ProducerError(f"{self._name} answers {status}: check the address and what the API asks for")
        return response.content

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.wait if isinstance(error, _NoAnswerError) else None
        return self._backoff(state) if asked is None else asked

    def _say(self, state: RetryCallState) -> None:
        self._retries += 1
        error = state.outcome.exception() if state.outcome else None
        wait = state.next_action.sleep if state.next_action else 0.0
        _log.warning("%s: %s; try %s in %.1f s", self._name, error, state.attempt_number + 1, wait)

    def _messages(self, body: bytes) -> list[Message]:
        split = _decode(body)
        rows = [bytes(json_list(values)) for values in split.data]
        # An API asked more often than it has news gives the same payments again.
        fresh = [place for place, row in enumerate(rows) if row not in self._previous]
        self._repeated += bool(rows) and not fresh
        self._previous = frozenset(rows)
        messages: list[Message] = []
        bad: list[str] = []
        for place in fresh:
            try:
                messages.append(self._message(split, place))
            except _MalformedError as error:
                bad.append(str(error))
        if bad:
            self._left_out += len(bad)
            _log.warning("%s: %s of %s payments malformed, left out: %s", self._name, len(bad), len(fresh), bad[0])
        return messages

    def _message(self, split: _SplitResponse, place: int) -> Message:
        values = split.data[place]
        if len(values) != len(split.columns):
            raise _MalformedError(f"a row has {len(values)} values for {len(split.columns)} columns")
        payment: dict[str, bytes | msgspec.Raw] = dict(zip(split.columns, values, strict=True))
        if CURRENT_TIME in payment:
            _set_times(payment)
        known = [name for name in COLUMNS if name in payment]
        names = known + [name for name in payment if name not in COLUMNS]
        number = next(self._numbers)
        index = split.index[place] if split.index and len(split.index) == len(split.data) else b"%d" % number
        row = json_list(payment[name] for name in names)
        return Message(_key(payment.get(CARD)), split_value(msgspec.json.encode(names), bytes(index), row))


def _without_keys(url: str) -> str:
    """Return an address that may not be one, without what stands where keys and passwords are."""
    address = url.partition("?")[0]
    return re.sub(r"^([^/]*//)?.*@", r"\1", address)


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
    """Replace `current_time`, by which older payments tell their time; a time that is there already is left alone."""
    try:
        moment = parse_unix_time(msgspec.json.decode(payment.pop(CURRENT_TIME)))
    except msgspec.DecodeError:
        moment = None
    if moment is None:
        raise _MalformedError(f"`{CURRENT_TIME}` is not a time")
    payment.setdefault(TIME, msgspec.json.encode(date_time_text(moment)))
    payment.setdefault(UNIX_TIME, b"%d" % unix_time(moment))


def _key(card: bytes | msgspec.Raw | None) -> bytes | None:
    """The card number as text, whether it came as a number or as text: one card, one partition."""
    if card is None or card == b"null":
        return None
    card = bytes(card)
    return msgspec.json.decode(card, type=str).encode() if card.startswith(b'"') else card


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds; the header's other form, a date, is rare enough for the ordinary backoff."""
    text = response.headers.get("Retry-After", "")
    return min(float(text), _LONGEST_RETRY_AFTER) if text.isdecimal() else None
