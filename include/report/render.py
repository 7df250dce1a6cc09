"""The mails' HTML: templates with every value escaped, and the ways they write values."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_NOTHING = "—"
_LONGEST = 80


def html(template: str, **values: object) -> str:
    text = _environment().get_template(template).render(**values)
    # JSON may hold half of a surrogate pair, which no mail can carry.
    return text.encode("utf-8", "replace").decode("utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(text=_text, money=_money, percent=_percent, utc=_utc)
    return environment


def _text(value: object) -> str:
    """Text of a payment, shortened: a mail must not grow with what somebody put into a column."""
    text = _NOTHING if value is None else " ".join(str(value).split()) or _NOTHING
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _money(value: object) -> str:
    """An amount with two decimals and groups of thousands; anything else as the text it is."""
    try:
        number = float(str(value))
    except ValueError:
        return _text(value)
    return f"{number:,.2f}" if math.isfinite(number) and abs(number) < 1e15 else _text(value)


def _percent(value: float | None) -> str:
    """Rounded down: 99.97 % must not read as certainty."""
    return _NOTHING if value is None or math.isnan(value) else f"{math.floor(value * 1000) / 10:.1f} %"


def _utc(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
