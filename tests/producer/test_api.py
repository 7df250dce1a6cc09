"""Polling a payments API, against a real HTTP server on loopback with prepared responses."""

from __future__ import annotations

import itertools
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from include.errors import ProducerError, SettingError
from include.payments.columns import COLUMNS
from include.producer.api import ApiPayments
from include.producer.message import PaymentMessage

PAYMENT = {
    "cc_num": "4586834497869073662",
    "merchant": '"fraud_McDermott, Osinski and Morar"',
    "category": '"home"',
    "amt": "16.180",
    "first": '"Kimberly"',
    "last": '"Myers"',
    "gender": '"F"',
    "street": '"6881 King Isle Suite 228"',
    "city": '"Higganum"',
    "state": '"CT"',
    "zip": "6441",
    "lat": "41.4682",
    "long": "-72.5751",
    "city_pop": "5438",
    "job": '"Librarian, academic"',
    "dob": '"1964-11-17"',
    "trans_num": '"64b632ebfbc52a1075747f9301db22b8"',
    "merch_lat": "41.581898",
    "merch_long": "-73.130293",
    "is_fraud": "0",
    "current_time": "1730390185811",
}
TIMES = {"trans_date_trans_time": '"2024-10-31 15:56:25"', "unix_time": "1730390185811"}


@dataclass
class Response:
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Api:
    """Return the responses in turn, then the last one for ever. A status of 0 closes the connection instead."""

    responses: list[Response] = field(default_factory=list)
    requests: list[float] = field(default_factory=list)
    url: str = ""

    def next(self) -> Response:
        self.requests.append(time.monotonic())
        return self.responses[min(len(self.requests), len(self.responses)) - 1]


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            response = api.next()
            if not response.status:
                self.close_connection = True
                return
            self.send_response(response.status)
            for name, value in response.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(response.body)))
            self.end_headers()
            self.wfile.write(response.body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        api.url = f"http://127.0.0.1:{server.server_port}/current-transactions"
        yield api
        server.shutdown()
        thread.join()


def split(*payments: dict[str, str], index: str = "144842") -> bytes:
    names = json.dumps(list(payments[0]))
    rows = ",".join(f"[{', '.join(payment.values())}]" for payment in payments)
    return f'{{"columns":{names}, "index":[{index}], "data":[{rows}]}}'.encode()


def take(source: ApiPayments, count: int, stop: threading.Event | None = None) -> list[PaymentMessage]:
    messages = itertools.chain.from_iterable(source.message_lists(stop or threading.Event()))
    return list(itertools.islice(messages, count))


def source(api: Api, **options: float) -> ApiPayments:
    return ApiPayments(api.url, **{"interval": 0.05, "max_backoff_seconds": 0.1} | options)  # type: ignore[arg-type]


def sent_value(payment: dict[str, str], index: str = "144842") -> bytes:
    names = json.dumps(list(payment), separators=(",", ":"))
    return f'{{"columns":{names},"index":[{index}],"data":[[{",".join(payment.values())}]]}}'.encode()


def in_order(payment: dict[str, str]) -> dict[str, str]:
    return {name: payment[name] for name in COLUMNS}


def payment_with(number: int) -> dict[str, str]:
    return PAYMENT | {"trans_num": f'"{number:032x}"'}


def test_current_time_becomes_both_times_and_other_values_stay(api: Api) -> None:
    api.responses = [Response(split(PAYMENT))]
    [message] = take(source(api), 1)
    assert message.value == sent_value(in_order(PAYMENT | TIMES))
    assert message.key == b"4586834497869073662"


@pytest.mark.parametrize("current_time", ["1730390185", '"1730390185.5"', "1730390185000250", "1730390185000250375"])
def test_current_time_in_another_unit_becomes_the_same_times(api: Api, current_time: str) -> None:
    api.responses = [Response(split(PAYMENT | {"current_time": current_time})), Response(split(payment_with(1)))]
    [message] = take(source(api), 1)
    milliseconds = "1730390185500" if "." in current_time else "1730390185000"
    assert message.value == sent_value(in_order(PAYMENT | TIMES | {"unix_time": milliseconds}))


@pytest.mark.parametrize("wraps", [1, 2])
def test_json_inside_a_json_string_is_read(api: Api, wraps: int) -> None:
    body = split(PAYMENT)
    for _ in range(wraps):
        body = json.dumps(body.decode()).encode()
    api.responses = [Response(body)]
    [message] = take(source(api), 1)
    assert message.value == sent_value(in_order(PAYMENT | TIMES))


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda body: b"\xef\xbb\xbf" + body, id="byte order mark"),
        pytest.param(
            lambda body: b"\xef\xbb\xbf" + json.dumps("\ufeff" + body.decode()).encode(), id="and a JSON string"
        ),
        pytest.param(lambda body: body.replace(b"[[", b"[").replace(b"]]", b"]"), id="flat data"),
    ],
)
def test_wrapped_or_flat_response_is_read(api: Api, wrap: Callable[[bytes], bytes]) -> None:
    api.responses = [Response(wrap(split(PAYMENT))), Response(split(payment_with(1)))]
    [message] = take(source(api), 1)
    assert message.value == sent_value(in_order(PAYMENT | TIMES))


def test_existing_times_are_kept(api: Api) -> None:
    own = {"trans_date_trans_time": '"2020-01-01 00:00:00"', "unix_time": "1577836800000"}
    api.responses = [Response(split(PAYMENT | own))]
    [message] = take(source(api), 1)
    assert message.value == sent_value(in_order(PAYMENT | own))


def test_rows_with_unknown_and_missing_columns_and_a_card_as_text_are_sent(api: Api) -> None:
    first = {name: value for name, value in PAYMENT.items() if name != "job"} | {"channel": '"web"'}
    second = first | {"cc_num": '"0377895991033232"', "amt": "1E+2"}
    api.responses = [Response(split(first, second, index='7, "b"'))]
    messages = take(source(api), 2)
    expected = [in_order(payment | TIMES | {"job": ""}) for payment in (first, second)]
    for payment in expected:
        del payment["job"]
        payment["channel"] = '"web"'
    assert [message.value for message in messages] == [sent_value(expected[0], "7"), sent_value(expected[1], '"b"')]
    assert [message.key for message in messages] == [b"4586834497869073662", b"0377895991033232"]


def test_interval_is_kept_and_count_ends_polling(api: Api) -> None:
    api.responses = [Response(split(payment_with(number))) for number in range(4)]
    messages = list(itertools.chain.from_iterable(source(api, interval=0.2, count=4).message_lists(threading.Event())))
    assert len(messages) == 4
    assert [second - first > 0.15 for first, second in itertools.pairwise(api.requests)] == [True] * 3


def test_repeated_response_is_sent_once(api: Api) -> None:
    same = Response(split(PAYMENT))
    api.responses = [same, same, Response(split(payment_with(2)))]
    api_payments = source(api)
    messages = take(api_payments, 2)
    assert [json.loads(message.value)["data"][0][17] for message in messages] == [
        PAYMENT["trans_num"].strip('"'),
        f"{2:032x}",
    ]
    assert "1 repeated" in api_payments.status()


def test_failed_requests_are_repeated(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    api.responses = [Response(status=500), Response(status=503), Response(status=0), Response(split(PAYMENT))]
    api_payments = source(api)
    assert len(take(api_payments, 1)) == 1
    assert "3 retries" in api_payments.status()
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 3
    assert "500 Internal Server Error; attempt 2 in" in caplog.messages[0]
    assert "RemoteProtocolError" in caplog.messages[2]


def test_refused_connections_are_repeated_until_a_stop() -> None:
    api_payments = ApiPayments("http://127.0.0.1:9/", interval=0.1, max_backoff_seconds=0.05)
    stop = threading.Event()
    thread = threading.Thread(target=take, args=(api_payments, 1, stop))
    thread.start()
    deadline = time.monotonic() + 10
    while not (retried := re.search(r" [1-9]\d* retries", api_payments.status())) and time.monotonic() < deadline:
        stop.wait(0.005)
    stop.set()
    thread.join(5)
    assert not thread.is_alive()
    assert retried


def test_retry_after_is_respected(api: Api) -> None:
    api.responses = [Response(status=429, headers={"Retry-After": "1"}), Response(split(PAYMENT))]
    assert len(take(source(api), 1)) == 1
    assert 1 <= api.requests[1] - api.requests[0] < 3


def test_stop_ends_a_long_wait(api: Api) -> None:
    api.responses = [Response(status=429, headers={"Retry-After": "500"})]
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    begin = time.monotonic()
    assert take(source(api), 1, stop) == []
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>busy</html>",
        b'"not json inside"',
        b'{"error": "late"}',
        b"[1, 2]",
        b'{"columns": ["a"], "data": [[NaN]]}',
        b'{"columns": ["a"], "data": [["\xff"]]}',
        b"[" * 100_000,
        split(PAYMENT)[:-20],
    ],
)
def test_malformed_responses_are_counted_and_polling_continues(
    api: Api, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    api.responses = [Response(body), Response(split(PAYMENT))]
    api_payments = source(api)
    assert len(take(api_payments, 1)) == 1
    assert "1 malformed" in api_payments.status()
    assert "malformed response 1: " in caplog.text


@pytest.mark.parametrize(
    "bad", [{"current_time": '"soon"'}, {"current_time": "9" * 20}, {"amt": "1, 2"}, {"amt": "nothing"}]
)
def test_malformed_payment_is_left_out_and_counted_once(
    api: Api, bad: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    response = split(payment_with(1), PAYMENT | bad, payment_with(2)).replace(b"nothing, ", b"")
    api.responses = [Response(response), Response(response), Response(split(payment_with(3)))]
    api_payments = source(api)
    sent = [json.loads(message.value)["data"][0][17] for message in take(api_payments, 3)]
    assert sent == [f"{number:032x}" for number in (1, 2, 3)]
    assert "0 malformed and 1 repeated responses, 1 malformed payments" in api_payments.status()
    [line] = caplog.messages
    assert ": 1 of 3 payments are malformed and left out, the first: " in line
    assert "Kimberly" not in line


def test_response_without_payments_is_not_malformed(api: Api) -> None:
    api.responses = [Response(b'{"columns": [], "index": [], "data": []}'), Response(split(PAYMENT))]
    api_payments = source(api)
    assert len(take(api_payments, 1)) == 1
    assert "0 malformed and 0 repeated" in api_payments.status()


@pytest.mark.parametrize("status", [400, 401, 404])
def test_refused_request_is_an_error_without_the_key(api: Api, status: int) -> None:
    api.responses = [Response(status=status)]
    api.url += "?key=sesame"
    with pytest.raises(ProducerError, match=f"/current-transactions returned {status} ") as error:
        take(source(api), 1)
    assert "sesame" not in str(error.value)
    assert len(api.requests) == 1


@pytest.mark.parametrize("url", ["", "127.0.0.1:80/x", "ftp://host/x", "http://", "http://host:port/"])
def test_invalid_url_is_refused(url: str) -> None:
    with pytest.raises(SettingError):
        ApiPayments(url, interval=1)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://ann:s3cret@host/x?key=s3cret",
        "http://ann:s3c/ret@host/x",
        "http://ann:s3cret@host:port/?key=s3cret",
        "ann:s3cret@host/x",
        "host/x?key=s3cret",
    ],
)
def test_invalid_url_is_shown_without_credentials(url: str) -> None:
    with pytest.raises(SettingError, match="host") as caught:
        ApiPayments(url, interval=1)
    assert "s3c" not in str(caught.value)
