"""The columns that a model takes, and what kind of value each expects."""

from __future__ import annotations

from dataclasses import dataclass

from include.payments.columns import COLUMNS

_NUMBERS = frozenset(
    ("cc_num", "amt", "zip", "lat", "long", "city_pop", "unix_time", "merch_lat", "merch_long", "is_fraud")
)
# What older producers send in place of the two columns that are derived from it.
CURRENT_TIME = "current_time"
DERIVED = ("trans_date_trans_time", "unix_time")

# MLflow's type names to ours. `any` is passed on as it came.
_KINDS = {
    "boolean": "boolean",
    "integer": "int32",
    "long": "int64",
    "float": "float32",
    "double": "float64",
    "string": "text",
    "datetime": "datetime",
}


@dataclass(frozen=True)
class Column:
    """`kind`: any, text, boolean, datetime, number, or a number's exact type (int32, int64, float32, float64)."""

    name: str
    kind: str = "any"
    required: bool = True

    @property
    def expects(self) -> str:
        """In words for a refusal."""
        if self.kind in ("text", "boolean", "datetime", "any"):
            return {"datetime": "time", "any": "value"}.get(self.kind, self.kind)
        return "whole number" if self.kind.startswith("int") else "number"


def kind_of_mlflow(name: str) -> str:
    return _KINDS.get(name, "any")


def kind_of_payment(name: str) -> str:
    """What the contract of payments says of a column; `any` for columns it does not know."""
    if name in _NUMBERS:
        return "number"
    return "text" if name in COLUMNS else "any"
