"""Compares output with input by the contract, without the product's code.

Numbers are compared as text, so that no digit can be lost or added unnoticed.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Message

HALVES = re.compile(rb"\\u[dD][89a-fA-F]")
ORACLE = Path(__file__).with_name("oracle.py")


class Number(str):
    """A number as text: 1.0 is not 1, and 1e2 is not 100."""


@dataclass(frozen=True)
class Expected:
    """The expected output of one payment, or of a message that is not one (`row` is None, or it has no values)."""

    message: Any
    row: int | None
    columns: list[str] | None = None
    values: list[Any] | None = None
    flat: bool = False


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _read(value: bytes, **options: Any) -> Any:
    return json.loads(inner_text(value), parse_constant=_no_constant, **options)


def inner_text(value: bytes) -> str:
    """Return the JSON text without byte order marks and without JSON strings around it."""
    # Not json.loads(bytes), which guesses UTF-16.
    text = value.decode().lstrip("\ufeff")
    while text.lstrip().startswith('"'):
        text = json.loads(text).lstrip("\ufeff")
    return text


def expected(messages: Iterable[Message]) -> list[Expected]:
    return [one for message in messages for one in _expected_of(message)]


def _expected_of(message: Any) -> list[Expected]:
    whole = [Expected(message, None)]
    try:
        content = _read(message.value() or b"", parse_int=Number, parse_float=Number)
    except (ValueError, RecursionError):
        return whole
    # No writer of UTF-8 can pass on half of a surrogate pair, and many a reader refuses it.
    if not isinstance(content, dict) or (HALVES.search(message.value() or b"") and not _is_text(content)):
        return whole
    columns, rows = content.get("columns"), content.get("data")
    if not isinstance(columns, list) or not isinstance(rows, list) or not rows:
        return whole
    if not all(type(name) is str for name in columns) or len(set(columns)) < len(columns):
        return whole
    if not any(isinstance(row, list) for row in rows) and not all(isinstance(row, dict) for row in rows):
        # The values of one row, without a list of its own.
        return [Expected(message, 0, columns, rows, flat=True) if len(rows) == len(columns) else Expected(message, 0)]
    return [
        Expected(message, number, columns, row)
        if isinstance(row, list) and len(row) == len(columns)
        else Expected(message, number)
        for number, row in enumerate(rows)
    ]


def _is_text(content: Any) -> bool:
    try:
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def source_of(message: Message) -> str:
    return f"{message.topic()}/{message.partition()}/{message.offset()}"


@dataclass(frozen=True)
class Sent:
    """A message that has no offset yet."""

    content: bytes | None

    def value(self) -> bytes | None:
        return self.content


Answers = dict[tuple[bytes, int], int | str]
"""By message and row: 0, 1, or the name of what the bare model raised."""


def ask_oracle(
    values: Iterable[bytes | None],
    alone: Callable[[bytes], bool],
    model_uri: str,
    file: Path,
    environment: dict[str, str],
) -> Answers:
    """Return the oracle's predictions of all payments in these messages; those in `alone` have a frame of their own."""
    places: list[tuple[bytes, int]] = []
    with file.open("w") as lines:
        for value in values:
            rows = [one.row for one in _expected_of(Sent(value)) if one.values is not None and one.row is not None]
            if rows and value is not None:
                lines.write(json.dumps([alone(value), inner_text(value), rows]) + "\n")
                places += [(value, row) for row in rows]
    variables = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | environment
    done = subprocess.run(
        [sys.executable, "-I", str(ORACLE), model_uri, str(file)],
        env=variables, cwd=file.parent, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(zip(places, json.loads(done.stdout), strict=True))


def check_each_once(
    wanted: list[Expected], scored: Iterable[Message], dead: Iterable[Message], name_of: Callable[[Expected], str]
) -> None:
    due = Counter((source_of(one.message), one.row) for one in wanted)
    assert set(due.values()) == {1}
    came = Counter(_place(message) for message in [*scored, *dead])
    doubled = [place for place, times in came.items() if times > 1]
    assert not doubled, f"{len(doubled)} came twice: {doubled[:5]}"
    lost = {name_of(one) for one in wanted if (source_of(one.message), one.row) not in came}
    assert not lost, f"of these kinds some never came: {sorted(lost)}"
    assert not came.keys() - due.keys(), f"nobody sent: {sorted(map(str, came.keys() - due.keys()))[:5]}"


def _place(message: Message) -> tuple[str, int | None]:
    # A dead letter's own headers come first, and may have the same names.
    headers = message.headers() or []
    reasons = [place for place, (name, _) in enumerate(headers) if name == "reason"]
    ours = dict(headers[reasons[-1] :] if reasons else headers)
    row = ours.get("row")
    return (ours["source"] or b"").decode(), None if row is None else int(row)


def check_scored(wanted: Iterable[Expected], scored: Iterable[Message], run_id: str) -> dict[tuple[str, int], int]:
    """Check that each output is its payment except for two columns. Return the predictions by source and row."""
    payments = {(source_of(one.message), one.row): one for one in wanted if one.values is not None}
    predictions = {}
    for message in scored:
        source, row = _place(message)
        headers = dict(message.headers() or [])
        one = payments[source, row]
        records = _read(
            message.value() or b"", parse_int=Number, parse_float=Number, object_pairs_hook=lambda pairs: pairs
        )
        assert len(records) == 1, source
        names, values = [name for name, _ in records[0]], [value for _, value in records[0]]
        prediction = values[names.index("is_fraud")]
        assert prediction in ("0", "1"), source
        assert isinstance(prediction, Number), source
        want_names, want_values = _as_published(one, prediction)
        assert names == want_names, source
        assert values == want_values, f"{source} row {row}: a value changed"
        assert message.key() == one.message.key(), source
        assert headers["model_run_id"] == run_id.encode()
        assert re.fullmatch(rb"\d{8}T\d{6}Z-[0-9a-f]{6}", headers["batch_id"] or b"")
        assert headers["scored_at"]
        assert (float(headers["fraud_probability"] or "nan") > 0.5) == (prediction == "1"), source
        assert row is not None
        predictions[source, row] = int(prediction)
    return predictions


def _as_published(one: Expected, prediction: str) -> tuple[list[str], list[Any]]:
    assert one.columns is not None
    assert one.values is not None
    # Numbers and texts again from the raw value, with objects as pairs: their order and doubles count as well.
    content = _read(
        one.message.value() or b"", parse_int=Number, parse_float=Number, object_pairs_hook=lambda pairs: pairs
    )
    data = dict(content)["data"]
    values = data if one.flat else data[one.row]
    kept = [(name, value) for name, value in zip(one.columns, values, strict=True) if name != "fraud_confirmed"]
    if "is_fraud" not in one.columns:
        kept.append(("is_fraud", None))
    kept = [(name, Number(prediction) if name == "is_fraud" else value) for name, value in kept]
    kept.append(("fraud_confirmed", None))
    return [name for name, _ in kept], [value for _, value in kept]


def check_dead(wanted: Iterable[Expected], dead: Iterable[Message]) -> Counter[str]:
    """Check that each dead letter holds the original key, value and headers. Return the counts of reason codes."""
    originals = {(source_of(one.message), one.row): one.message for one in wanted}
    codes: Counter[str] = Counter()
    for message in dead:
        source, row = _place(message)
        original = originals[source, row]
        assert message.value() == original.value(), source
        assert message.key() == original.key(), source
        headers, own = message.headers() or [], original.headers() or []
        assert headers[: len(own)] == own, source
        added = [name for name, _ in headers[len(own) :]]
        assert added == ["reason", "source", *(["row"] if row is not None else []), "batch_id"], source
        reason = (dict(headers)["reason"] or b"").decode()
        code, _, sentence = reason.partition(": ")
        assert re.fullmatch(r"[a-z][a-z0-9_]+", code), reason
        assert sentence, reason
        codes[code] += 1
    return codes


def check_predictions(
    wanted: Iterable[Expected],
    answers: Answers,
    predictions: dict[tuple[str, int], int],
    name_of: Callable[[Expected], str],
) -> None:
    """Check that predictions equal the oracle's, and that payments on which it raised are dead letters."""
    wrong: dict[str, str] = {}
    for one in wanted:
        if one.values is None or one.row is None:
            continue
        answer = answers[one.message.value() or b"", one.row]
        came = predictions.get((source_of(one.message), one.row))
        if came != (answer if isinstance(answer, int) else None):
            wrong.setdefault(name_of(one), f"row {one.row}: oracle {answer}, product {came}")
    assert not wrong, "\n".join(f"{name}: {what}" for name, what in wrong.items())
