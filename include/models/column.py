"""The columns that a model takes, and the type of value that each holds in the frame that it was trained on."""

from __future__ import annotations

from dataclasses import dataclass

from include.payments.columns import COLUMNS

_WHOLE = frozenset(("cc_num", "zip", "city_pop", "unix_time", "is_fraud"))
_FRACTION = frozenset(("amt", "lat", "long", "merch_lat", "merch_long"))
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
    """Describe one column.

    `kind` is any, text, boolean, datetime, int32, int64, float32 or float64. `declared` is true where the model's
    signature gives the kind; a kind that only the contract of payments gives never turns text into a number or a
    number into text, because the model may have been trained on the other one. A column that is not `required` may
    be missing from the frame.
    """

    name: str
    kind: str = "any"
    required: bool = True
    declared: bool = True

    @property
    def expects(self) -> str:
        """Name the type of value in words, for a refusal."""
        if self.kind in ("text", "boolean", "datetime", "any"):
            return {"datetime": "time", "any": "value"}.get(self.kind, self.kind)
        return "whole number" if self.is_whole else "number"

    @property
    def is_whole(self) -> bool:
        return self.kind.startswith("int")

    @property
    def is_number(self) -> bool:
        return self.kind.startswith(("int", "float"))


def kind_of_mlflow(name: str) -> str:
    return _KINDS.get(name, "any")


def column_of_payment(name: str) -> Column:
    """Return the column that the contract of payments describes; its kind is `any` for names that it does not know."""
    if name in _WHOLE:
        return Column(name, "int64", declared=False)
    if name in _FRACTION:
        return Column(name, "float64", declared=False)
    return Column(name, "text" if name in COLUMNS else "any", declared=False)
