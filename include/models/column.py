"""The columns that a model takes as input, and the type of their values in the training frame."""

from __future__ import annotations

from dataclasses import dataclass

from include.payments.columns import COLUMNS

_WHOLE_COLUMNS = frozenset(("cc_num", "zip", "city_pop", "unix_time", "is_fraud"))
_FRACTION_COLUMNS = frozenset(("amt", "lat", "long", "merch_lat", "merch_long"))
# Older producers send this field instead of the two columns that are derived from it.
CURRENT_TIME = "current_time"
DERIVED_COLUMNS = ("trans_date_trans_time", "unix_time")

# A column of another MLflow type has the kind `any`: its values reach the model unchanged.
_KINDS_BY_MLFLOW_TYPE = {
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
    """Describe one input column.

    `kind` is any, text, boolean, datetime, int32, int64, float32 or float64. `declared` is true if the model's
    signature or its categories give the kind. A kind that only the contract of payments gives never turns text into a
    number or a number into text, because the model may have been trained on either. A column that is not `required`
    may be missing from the frame.
    """

    name: str
    kind: str = "any"
    required: bool = True
    declared: bool = True

    @property
    def kind_text(self) -> str:
        """Return the expected type of value in words, for a refusal."""
        if self.kind in ("text", "boolean", "datetime", "any"):
            return {"datetime": "time", "any": "value"}.get(self.kind, self.kind)
        return "whole number" if self.is_whole else "number"

    @property
    def is_whole(self) -> bool:
        """Return whether the column holds whole numbers."""
        return self.kind.startswith("int")

    @property
    def is_number(self) -> bool:
        """Return whether the column holds numbers, whole ones or floats."""
        return self.kind.startswith(("int", "float"))


def kind_of_mlflow_type(name: str) -> str:
    """Return the kind of a column whose type in MLflow's signature is `name`."""
    return _KINDS_BY_MLFLOW_TYPE.get(name, "any")


def payment_column(name: str) -> Column:
    """Return the column as the contract of payments describes it; the kind of an unknown name is `any`."""
    if name in _WHOLE_COLUMNS:
        return Column(name, "int64", declared=False)
    if name in _FRACTION_COLUMNS:
        return Column(name, "float64", declared=False)
    return Column(name, "text" if name in COLUMNS else "any", declared=False)
