"""Messages as producers send them: ordinary payments and every kind of rough input, as exact bytes.

A payment is a dict of column name to JSON text, so that a test decides each digit of what is sent.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

Payment = dict[str, str]
Headers = list[tuple[str, bytes | None]]

DEEP = "[" * 100 + "]" * 100
TOO_DEEP = "[" * 100_000 + "]" * 100_000
LONG = '"' + "x" * 100_000 + '"'


@dataclass(frozen=True)
class Incoming:
    """`kind` is empty for an ordinary payment."""

    kind: str
    value: bytes | None
    key: bytes | None
    headers: Headers


def tokens(columns: Iterable[str], values: Iterable[Any]) -> Payment:
    return {name: json.dumps(value) for name, value in zip(columns, values, strict=True)}


def split(*payments: Payment, index: str = "[0]") -> bytes:
    """JSON in pandas' split form; all payments have the first one's columns."""
    columns = ",".join(json.dumps(name) for name in payments[0])
    rows = ",".join("[" + ",".join(payment.values()) + "]" for payment in payments)
    return f'{{"columns":[{columns}],"index":{index},"data":[{rows}]}}'.encode()


def mixed(
    payments: list[Payment], seed: int, *, each: int, few: int, kinds: Iterable[str] | None = None
) -> list[Incoming]:
    """Return all payments as ordinary messages, mixed with each rough kind `each` times (heavy ones `few` times)."""
    rng = random.Random(seed)
    messages = [Incoming("", split(payment), json.loads(payment["cc_num"]), []) for payment in payments]
    messages = [Incoming("", m.value, str(m.key).encode(), []) for m in messages]
    for kind in kinds or ROUGH:
        for _ in range(few if kind in HEAVY else each):
            made = ROUGH[kind](dict(rng.choice(payments)), rng)
            messages.append(made if isinstance(made, Incoming) else Incoming(kind, made, b"a key", []))
    rng.shuffle(messages)
    return messages


ROUGH: dict[str, Callable[[Payment, random.Random], bytes | Incoming | None]] = {}
HEAVY: set[str] = set()


def _rough(
    kind: str, make: Callable[[Payment, random.Random], bytes | Incoming | None], *, heavy: bool = False
) -> None:
    assert kind not in ROUGH, kind
    ROUGH[kind] = make
    if heavy:
        HEAVY.add(kind)


def _with(**changes: str) -> Callable[[Payment, random.Random], bytes]:
    return lambda payment, rng: split(payment | changes)


def _without(*names: str) -> Callable[[Payment, random.Random], bytes]:
    return lambda payment, rng: split({name: text for name, text in payment.items() if name not in names})


def _raw(value: bytes | None) -> Callable[[Payment, random.Random], bytes | None]:
    return lambda payment, rng: value


def _shuffled(payment: Payment, rng: random.Random) -> bytes:
    return split(dict(rng.sample(list(payment.items()), len(payment))))


def _current_time(text: str, *keep: str) -> Callable[[Payment, random.Random], bytes]:
    def make(payment: Payment, rng: random.Random) -> bytes:
        gone = {"trans_date_trans_time", "unix_time"} - set(keep)
        return split({"current_time": text} | {name: value for name, value in payment.items() if name not in gone})

    return make


# Card numbers, which no float holds.
_rough("card of 19 digits", lambda p, r: split(p | {"cc_num": str(r.randrange(10**18, 10**19))}))
_rough("card over 2**53", lambda p, r: split(p | {"cc_num": str(r.randrange(2**53 + 1, 2**60) | 1)}))
_rough("card as text", lambda p, r: split(p | {"cc_num": f'"{r.randrange(10**18, 10**19)}"'}))
_rough("card as text with zeros first", _with(cc_num='"0004613314721966198"'))
_rough("card null", _with(cc_num="null"))

# Columns.
_rough("columns in another order", _shuffled)
for _name in ("street", "job", "cc_num", "trans_num"):
    _rough(f"{_name} missing, which no model needs", _without(_name))
for _name in ("amt", "category", "lat", "merch_long", "city_pop", "dob", "trans_date_trans_time", "unix_time"):
    _rough(f"{_name} missing", _without(_name))
_rough("both times missing", _without("trans_date_trans_time", "unix_time"))
_rough("is_fraud missing", _without("is_fraud"))
for _text in ("null", '"yes"', "7", '{"a": 1}', "1", "true"):
    _rough(f"is_fraud {_text}", _with(is_fraud=_text))
_rough("is_fraud first", lambda p, r: split({"is_fraud": "1"} | {n: t for n, t in p.items() if n != "is_fraud"}))
_rough("fraud_confirmed there already", _with(fraud_confirmed="true"))
_rough("fraud_confirmed in the middle", lambda p, r: split({"amt": p["amt"], "fraud_confirmed": '"x"'} | p))
_rough("unknown columns", _with(device='{"os": ["a", {"v": 1.50}], "n": null}', größe='"Ünïcode 💳"'))
_rough("unknown columns of odd names", lambda p, r: split({'quo"te': "1", "": "2", "a\nb\\": "3", "💳": "[]"} | p))
_rough("a name written with an escape", lambda p, r: split(p).replace(b'"amt"', b'"\\u0061mt"', 1))
_rough("a column named twice", lambda p, r: split(p).replace(b'"city_pop"', b'"amt"', 1))
_rough("no columns", _raw(b'{"columns":[],"index":[0],"data":[[]]}'))
_rough("half a surrogate pair in a name", lambda p, r: split(p).replace(b'"street"', b'"\\ud800"', 1))

# Rows.
_rough("several payments", lambda p, r: split(p, p | {"amt": "999.5"}, p | {"amt": "3"}))
_rough(
    "several payments, some of them bad",
    lambda p, r: split(p, p | {"amt": '"abc"'}, p | {"lat": "1,2"}, p | {"amt": "null"}, p | {"amt": "1e400"}, p),
)
_rough("rows that are no lists", lambda p, r: split(p).replace(b'"data":[', b'"data":[7,{"amt":1},null,"x",', 1))
_rough("a row too short", lambda p, r: split(p).replace(b'"data":[', b'"data":[[],[1,2],', 1))
_rough("300 payments", lambda p, r: split(*(p | {"amt": f"{n}.25"} for n in range(300))), heavy=True)
_rough("300 empty rows", lambda p, r: split(p).replace(b'"data":[', b'"data":[' + b"[]," * 300, 1), heavy=True)
_rough("flat data of one row", lambda p, r: split(p).replace(b"[[", b"[").replace(b"]]", b"]"))
_rough("flat data that is too short", lambda p, r: split(p).partition(b'"data"')[0] + b'"data":[1,"a",null]}')
_rough("no rows", lambda p, r: split(p).partition(b'"data"')[0] + b'"data":[]}')

# Older producers.
_rough("current_time", lambda p, r: _current_time(p["unix_time"])(p, r))
_rough("current_time with a fraction", _current_time("1730390185811.7"))
_rough("current_time as text", _current_time('"1730390185811"'))
_rough("current_time beside unix_time", _current_time("1730390185811", "unix_time"))
_rough("current_time beside both times", _current_time("1", "trans_date_trans_time", "unix_time"))
for _text in ("1730390185", "1730390185811250", "1730390185811250375", '"1730390185.811"'):
    _rough(f"current_time in another unit {_text}", _current_time(_text))
for _text in ("null", '"soon"', "1e300", "-1", "[]", "1" + "0" * 30):
    _rough(f"current_time {_text}", _current_time(_text))

# Foreign messages.
for _text in ('{"hello": 1}', "[]", "null", "42", '"text"', "{}", '{"columns": null, "data": [[1]]}', "true"):
    _rough(f"foreign JSON {_text}", _raw(_text.encode()))
_rough("records form", lambda p, r: b"[{" + ",".join(f'"{n}":{t}' for n, t in p.items()).encode() + b"}]")
_rough("split form in a text", lambda p, r: json.dumps(split(p).decode()).encode())
_rough("split form in a text in a text", lambda p, r: json.dumps(json.dumps(split(p).decode())).encode())
_rough("cut off in a text", lambda p, r: json.dumps(split(p).decode()[: r.randrange(1, 400)]).encode())
_rough("columns without data", _raw(b'{"columns":["amt"],"index":[0]}'))
_rough("data is no list", _raw(b'{"columns":["amt"],"index":[0],"data":{"0":[1]}}'))
_rough("names are no texts", _raw(b'{"columns":[1,null],"index":[0],"data":[[1,2]]}'))
_rough("not JSON", _raw(b"hello"))
_rough("cut off", lambda p, r: split(p)[: r.randrange(1, 400)])
_rough("two JSON texts", lambda p, r: split(p) + split(p))
_rough("NaN", _with(amt="NaN"))
_rough("Infinity", _with(amt="-Infinity"))
_rough("comma at the end", lambda p, r: split(p).replace(b"]]}", b",]]}"))
_rough("single quotes", lambda p, r: split(p).replace(b'"', b"'"))
_rough("a number with a zero first", _with(amt="016.18"))
_rough("a line end inside a text", _with(merchant='"a\nb"'))
_rough("Avro", _raw(b"\x00\x00\x00\x00\x07\x02\x80\xff"))
_rough("empty value", _raw(b""))
_rough("blanks only", _raw(b"  \n"))
_rough("zero byte", _raw(b"\x00"))
_rough("tombstone", _raw(None))
_rough("not UTF-8 in a text", lambda p, r: split(p).replace(b"fraud_", b"\xff\xfe_", 1))
_rough("Latin-1", lambda p, r: split(p | {"city": '"Zürich"'}).decode().encode("latin-1"))
_rough("UTF-16", lambda p, r: split(p).decode().encode("utf-16"))
_rough("surrogates encoded as UTF-8", lambda p, r: split(p).replace(b"fraud_", b"\xed\xa0\x80_", 1))
_rough("byte order mark", lambda p, r: b"\xef\xbb\xbf" + split(p))
_rough("byte order marks around a text", lambda p, r: json.dumps("\ufeff" + split(p).decode()).encode("utf-8-sig"))
_rough("byte order mark alone", _raw(b"\xef\xbb\xbf"))
_rough("nested too deep to read", lambda p, r: split(p | {"street": TOO_DEEP}), heavy=True)

# JSON's own freedom.
_rough("written over many lines", lambda p, r: json.dumps(json.loads(split(p)), indent=2).encode())
_rough("blanks around everything", lambda p, r: b" \r\n\t" + split(p).replace(b",", b" ,\n ") + b" \n")
_rough("keys in another order", lambda p, r: b'{"data":' + split(p).partition(b'"data":')[2][:-1] + b',"columns":' + split(p)[11:].partition(b',"index"')[0] + b"}")  # fmt: skip # noqa: E501
_rough("further keys", lambda p, r: split(p)[:-1] + b',"schema":{"version":"1"},"n":null}')
_rough("data twice, the last one counts", lambda p, r: b'{"data":[[1]],' + split(p)[1:])
_rough("escapes in texts", _with(merchant='"\\u00e9\\/\\"\\\\\\b\\u0000"', category='"\\u0068ome"'))
_rough("nested deep", _with(street=DEEP))
_rough("a text of 100 kB", _with(street=LONG), heavy=True)
_rough("a category of 100 kB", _with(category=LONG), heavy=True)
_rough("half a surrogate pair in a text", _with(merchant='"a\\ud800b"'))
_rough("half a surrogate pair in the category", _with(category='"\\udfff"'))

# Values.
for _name in ("amt", "lat", "city_pop", "unix_time", "dob", "category", "gender", "trans_date_trans_time", "merchant"):
    _rough(f"{_name} null", _with(**{_name: "null"}))
for _text in (
    *("16.18", " 16.18 ", "1e3", "16,18", "abc", "", "nan", "inf", "0x10", "1_000", "١٢", "-0.0", "1e400", "None"),
    *("true", "16.18 EUR", "9" * 30, "null", "1d", "\u00a012"),
):
    _rough(f"amount as text {_text!r}", _with(amt=json.dumps(_text)))
for _name in ("lat", "city_pop", "unix_time", "merch_lat"):
    _rough(f"{_name} as text", lambda p, r, name=_name: split(p | {name: json.dumps(p[name])}))
for _text in (
    *("true", "false", "[]", "{}", "[16.18]", '{"v": 16.18}', "0", "-0.0", "-5", "16", "16.180", "1E2", "1e-400"),
    *("1e300", "-1e300", "1e400", "-1e400", "1e38", "3.4028234e38", "3.4028236e38", "3.5e38", "1e308"),
    *("9007199254740993", "9223372036854775807", "9223372036854775808", "18446744073709551616", "-9223372036854775809"),
    *("1" + "0" * 30, "-1" + "0" * 30, "1" + "0" * 320, "0.1000000000000000055511151231257827", "1" * 5000),
):
    _rough(f"amount {_text[:40]}{len(_text) if len(_text) > 40 else ''}", _with(amt=_text))
_rough("huge number nobody needs", _with(zip="9" * 400, street="1e400"))
for _name, _text in (
    *(("city_pop", "true"), ("city_pop", "1.5"), ("unix_time", "1e300"), ("unix_time", "1" * 25), ("lat", "95.5")),
    *(("lat", "1e300"), ("long", "-1e400"), ("merch_lat", '"north"'), ("unix_time", "-1"), ("city_pop", "-3")),
):
    _rough(f"{_name} {_text}", _with(**{_name: _text}))
for _name, _text in (
    *(("category", "5"), ("category", "true"), ("category", "[1]"), ("category", '{"a": 1}'), ("category", '""')),
    *(("category", '"unheard_of"'), ("category", "1e400"), ("gender", "1"), ("gender", '"X"'), ("gender", "[]")),
    *(("dob", "1964"), ("dob", '"garbage"'), ("dob", '""'), ("dob", '"9999-12-31"'), ("dob", '"0001-01-01"')),
    *(("dob", '"now"'), ("dob", '"1964-02-30"'), ("dob", "true"), ("dob", '"1964-11-17T00:00:00+02:00"')),
    *(("dob", "[]"), ("dob", '"17.11.1964"'), ("dob", '"nan"'), ("dob", '"NaT"'), ("dob", '"1964-11"')),
    *(("trans_date_trans_time", '"2024-10-31T15:56:25Z"'), ("trans_date_trans_time", '"2024-10-31"')),
    *(("trans_date_trans_time", '"2024-10-31 15:56:25.123456789"'), ("trans_date_trans_time", "1730390185811")),
    *(("trans_date_trans_time", '"yesterday"'), ("trans_date_trans_time", '"2024-10-31 25:00:00"')),
    *(("trans_date_trans_time", '"2024-10-31 15:56:25+14:00"'), ("trans_date_trans_time", '"2024-10-31 15:56:60"')),
):
    _rough(f"{_name} {_text}", _with(**{_name: _text}))

# Keys and headers.
for _key in (None, b"", b"\xff\x00", b"k" * 10_000, b"4613314721966198765"):
    _label = _key if _key is None else _key[:20]
    _rough(f"key {_label!r}", lambda p, r, key=_key: Incoming("key", split(p), key, []))
    _rough(f"dead with key {_label!r}", lambda p, r, key=_key: Incoming("key", b"{", key, []))
_HEADERS: Headers = [
    ("trace", b"1"), ("trace", b"2"), ("none", None), ("empty", b""), ("binary", b"\xff\x00"), ("ünï", "ö".encode()),
    ("", b"no name"), ("reason", b"theirs"), ("source", b"theirs"), ("row", b"theirs"), ("batch_id", b"theirs"),
]  # fmt: skip
_rough("headers", lambda p, r: Incoming("headers", split(p), b"k", _HEADERS))
_rough("dead with headers", lambda p, r: Incoming("headers", b"[1]", b"k", _HEADERS))
_rough("dead rows with headers", lambda p, r: Incoming("headers", split(p | {"amt": "[]"}, p), None, _HEADERS))
_rough("tombstone without key", lambda p, r: Incoming("tombstone", None, None, _HEADERS))
