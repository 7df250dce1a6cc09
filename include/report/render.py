"""Render the mails' HTML from templates that escape every value, with filters for numbers, times and text."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_NOTHING = "—"
_MAX_TEXT_LENGTH = 80


def html(template: str, **values: object) -> str:
    """Return the HTML of a template in the folder `templates`. Raise UndefinedError for a value that is missing."""
    text = _environment().get_template(template).render(**values)
    # JSON may hold half of a surrogate pair, which a mail cannot contain.
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
    """Return a payment's text, shortened, because a column may hold text of any length."""
    text = _NOTHING if value is None else " ".join(str(value).split()) or _NOTHING
    return text if len(text) <= _MAX_TEXT_LENGTH else text[: _MAX_TEXT_LENGTH - 1] + "…"


def _money(value: object) -> str:
    """Return an amount with two decimals and groups of thousands, or any other value as text."""
    try:
        number = float(str(value))
    except ValueError:
        return _text(value)
    return f"{number:,.2f}" if math.isfinite(number) and abs(number) < 1e15 else _text(value)


def _percent(value: float | None) -> str:
    """Return a probability in percent, rounded down: 99.97 % must not become 100.0 %."""
    return _NOTHING if value is None or math.isnan(value) else f"{math.floor(value * 1000) / 10:.1f} %"


def _utc(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
