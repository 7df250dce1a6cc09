"""What the name of a column of a model's output says: whether it holds labels, or probabilities of fraud."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from enum import Enum

_FRAUD = frozenset(("fraud", "frauds", "fraudulent", "1", "true", "positive", "pos"))
_GENUINE = frozenset(
    ("genuine", "legit", "legitimate", "normal", "benign", "nonfraud", "notfraud", "nofraud", "0", "false")
)
_GENUINE |= {"negative", "neg", "not", "non", "no", "free", "approval", "approved", "good", "ok", "safe", "clean"}
_GENUINE |= {"valid", "trust", "trusted", "honest", "anti", "without", "minus", "complement", "inverse", "absence"}
_GENUINE |= {"isnt", "un"}
_PROBABILITY = frozenset(("probability", "probabilities", "proba", "probas", "prob", "probs", "p"))
_LABEL = frozenset(("prediction", "predictions", "predicted", "predict", "pred", "preds", "label", "labels", "class"))
_LABEL |= {"isfraud"}
# Of these words a probability may be of the predicted class.
_OF_PREDICTION = _LABEL - {"predicted", "predict", "class", "isfraud"}
# Even alone, these may be of the predicted class, or grow with what is normal.
_CONFIDENCE = frozenset(("confidence", "certainty"))
_AMBIGUOUS = frozenset(("score", "scores", "anomaly", "outlier", "risk")) | _CONFIDENCE
_FILLERS = frozenset(("is", "of", "the", "y", "hat", "yhat", "output", "outputs", "target", "scored"))
# These say as little as an array without names.
_NEUTRAL = _FILLERS | {"result", "results", "value", "values"}

_KNOWN = _FRAUD | _GENUINE | _PROBABILITY | _LABEL | _AMBIGUOUS | _NEUTRAL


class Meaning(Enum):
    LABEL = "label"
    FRAUD = "probability of fraud"
    PROBABILITY = "probability, probably of fraud"
    GENUINE = "probability of a genuine payment"
    NEUTRAL = "anything"
    UNKNOWN = "unknown"


def meanings_of(names: Sequence[object]) -> list[Meaning]:
    """Return what each of several columns holds. Columns that differ in 0 and 1 only (`proba_0`, `proba_1`) are those
    of the two classes; with another number beside them (`output_2`) they are UNKNOWN."""
    words = [_words(name) for name in names]
    plain = [frozenset(word for word in each if not word.isdigit()) for each in words]
    found = []
    for name, each, own in zip(names, words, plain, strict=True):
        numbers = {word for other, same in zip(words, plain, strict=True) if same == own for word in other - same}
        meaning = meaning_of(name)
        if each != own and numbers - {"0", "1"}:
            meaning = Meaning.UNKNOWN
        elif each != own and numbers == {"0", "1"} and own - _FILLERS and own <= _KNOWN and not own & _GENUINE:
            meaning = Meaning.FRAUD if "1" in each else Meaning.GENUINE
        found.append(meaning)
    return found


def meaning_of(name: object) -> Meaning:
    """Return what a column of that name holds. A single unknown word makes it UNKNOWN."""
    words = _words(name)
    if words - _KNOWN or not words or _is_numbered(words) or words >= {"p", "value"} or words & _CONFIDENCE:
        return Meaning.UNKNOWN
    if words & _GENUINE:
        return Meaning.GENUINE
    if words & _AMBIGUOUS:
        return Meaning.FRAUD if words & _FRAUD and not words & _LABEL else Meaning.UNKNOWN
    if words & _PROBABILITY:
        return Meaning.FRAUD if words & _FRAUD and not words & _OF_PREDICTION else Meaning.PROBABILITY
    if words & _LABEL or ("is" in words and words & {"fraud", "fraudulent"}):
        # `class_1` is the name of a class, not a label.
        return Meaning.FRAUD if words >= {"class", "1"} else Meaning.LABEL
    return Meaning.FRAUD if words & _FRAUD else Meaning.NEUTRAL


def meaning_of_only(name: object, inputs: Collection[str]) -> Meaning:
    """Return what the column of a one-column output holds. A Series that was computed from an input column keeps that
    column's name, so such a name means nothing."""
    if name in inputs and name != "is_fraud":
        return Meaning.NEUTRAL
    words = _words(name)
    if _is_numbered(words):
        return Meaning.NEUTRAL
    meaning = meaning_of(name)
    if meaning is Meaning.UNKNOWN and words & {"fraud", "fraudulent"} and not words & (_GENUINE | _CONFIDENCE):
        # An unknown word may negate it.
        return Meaning.PROBABILITY
    return meaning


def _is_numbered(words: Collection[str]) -> bool:
    """Return whether the name is a general word with a number, such as TensorFlow's `output_0`."""
    numbers = {word for word in words if word.isdigit()}
    others = set(words) - numbers
    return bool(numbers and others) and others <= _NEUTRAL


def mentions_probability(name: object) -> bool:
    return bool(_words(name) & (_PROBABILITY | _AMBIGUOUS))


def _words(name: object) -> frozenset[str]:
    """Return the words of a name: `isFraud`, `P(fraud=1)`, `proba_1.0`."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", str(name)).lower()
    found = re.findall(r"[^\W\d_]+|\d+(?:\.\d+)?", spaced)
    return frozenset(word.removesuffix(".0") if word[0].isdigit() else word for word in found)
