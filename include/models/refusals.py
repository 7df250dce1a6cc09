"""Explain why the model cannot score one payment, without a word of the payment."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from include.models.column import Column
from include.models.frame import PaymentGroup
from include.models.series import BIG, BOOLEAN, CLASS_NAMES, FRACTION, HUGE, NULL, TEXT, UNSIGNED, WHOLE
from include.payments.refusal import Refusal

if TYPE_CHECKING:
    import pandas as pd

# The dead-letter code of a payment that is refused for no known reason.
MODEL_REFUSED = "model_refused"


def explain_refusal(
    group: PaymentGroup,
    position: int,
    columns: Iterable[Column],
    scored_frame: pd.DataFrame | None,
    error: Exception | None,
) -> Refusal:
    """Return why the model refused the payment at `position` of the group.

    `columns` are the model's input columns, and `scored_frame` is a frame that it scored, if there is one. `error` is
    what it raised; None if it returned no prediction. The error's own text is left out, because it may quote the
    payment.
    """
    if group.missing:
        required = [name for name in group.missing if scored_frame is None or name in scored_frame]
        detail = f"the payment lacks {', '.join(required or group.missing)}, which the model needs"
        return Refusal("missing_column", detail)
    for column in columns:
        value_class = group.classes[column.name]
        is_number = value_class in (WHOLE, FRACTION, BOOLEAN) or (
            value_class == TEXT and _is_number(group.frame[column.name].iloc[position])
        )
        is_other_type = (column.kind == "text" and value_class != TEXT) or (column.is_number and not is_number)
        if is_other_type or value_class == NULL:
            return Refusal("bad_value", f"{column.name}: {column.kind_text} expected, {CLASS_NAMES[value_class]} found")
        if value_class in (HUGE, UNSIGNED, BIG):
            return Refusal("bad_value", f"{column.name}: a number too large for the model")
    what = "gave no prediction" if error is None else f"raised {type(error).__name__}"
    return Refusal(MODEL_REFUSED, f"the model {what} for this payment")


def _is_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return True
