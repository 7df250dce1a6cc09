"""Records and predictions to topic_2's messages and their headers."""

from __future__ import annotations

_LABELS = (b"0", b"1")


def scored_object(head: bytes, tail: bytes, prediction: int) -> bytes:
    """The payment as one JSON object, `is_fraud` being the prediction (0 or 1)."""
    return head + _LABELS[prediction] + tail


def unscored_object(head: bytes, tail: bytes) -> bytes:
    """The payment as one JSON object for a model to read; `is_fraud` is null, for no model may see it."""
    return head + b"null" + tail


def scored_value(head: bytes, tail: bytes, prediction: int) -> bytes:
    """topic_2's value: JSON in pandas' "records" form, a list of one object."""
    return b"[%b%b%b]" % (head, _LABELS[prediction], tail)
