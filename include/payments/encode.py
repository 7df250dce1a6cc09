"""Join the two halves of a record and its prediction to the values of messages and to what models read."""

from __future__ import annotations

_LABELS = (b"0", b"1")


def scored_object(head: bytes, tail: bytes, prediction: int) -> bytes:
    """Return the payment as a JSON object in which `is_fraud` is the prediction, 0 or 1."""
    return head + _LABELS[prediction] + tail


def unscored_object(head: bytes, tail: bytes) -> bytes:
    """Return the payment as a JSON object for a model. `is_fraud` is null, because no model may see the label."""
    return head + b"null" + tail


def scored_value(head: bytes, tail: bytes, prediction: int) -> bytes:
    """Return the value of a message on the output topic: JSON in pandas' "records" form, a list of one object."""
    return b"[%b%b%b]" % (head, _LABELS[prediction], tail)
