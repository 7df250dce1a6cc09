"""Why the model cannot score one payment, without a word of the payment."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from include.models.column import Column
from include.models.frame import PaymentGroup
from include.models.series import BIG, BOOLEAN, FRACTION, HUGE, NULL, TEXT, UNSIGNED, WHOLE, WORDS
from include.payments.refusal import Refusal

if TYPE_CHECKING:
    import pandas as pd

UNEXPLAINED = "model_refused"


def refusal_of(
    group: PaymentGroup, place: int, takes: Iterable[Column], specimen: pd.DataFrame | None, error: Exception | None
) -> Refusal:
    """Return why the payment at `place` of the group was refused.

    `specimen` is a frame that the model scored, and `error` what it raised; without one it gave no prediction. The
    error's own words are left out, for they may quote the payment.
    """
    if group.missing:
        needed = [name for name in group.missing if specimen is None or name in specimen]
        sentence = f"the payment lacks {', '.join(needed or group.missing)}, which the model needs"
        return Refusal("missing_column", sentence)
    for column in takes:
        kind = group.classes[column.name]
        if column.kind == "text" and kind != TEXT:
            return Refusal("bad_value", f"{column.name}: {column.kind_text} expected, {WORDS[kind]} found")
        fits = kind in (WHOLE, FRACTION, BOOLEAN) or (kind == TEXT and _is_number(group.frame[column.name].iloc[place]))
        if column.is_number and not fits:
            return Refusal("bad_value", f"{column.name}: {column.kind_text} expected, {WORDS[kind]} found")
        if kind in (HUGE, UNSIGNED, BIG):
            return Refusal("bad_value", f"{column.name}: a number too large for the model")
        if kind == NULL:
            return Refusal("bad_value", f"{column.name}: {column.kind_text} expected, null found")
    what = "gave no prediction" if error is None else f"raised {type(error).__name__}"
    return Refusal(UNEXPLAINED, f"the model {what} for this payment")


def _is_number(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return True
