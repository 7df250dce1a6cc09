"""Tell from the name of an output column whether it holds labels or probabilities of fraud."""

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
# Beside one of these words, a probability may be of the predicted class instead of fraud.
_PREDICTED_CLASS = _LABEL - {"predicted", "predict", "class", "isfraud"}
# Even alone, these may be the probability of the predicted class, or be higher for genuine payments.
_CONFIDENCE = frozenset(("confidence", "certainty"))
_AMBIGUOUS = frozenset(("score", "scores", "anomaly", "outlier", "risk")) | _CONFIDENCE
_FILLERS = frozenset(("is", "of", "the", "y", "hat", "yhat", "output", "outputs", "target", "scored"))
# A name of such words only says nothing about the column, like an array without names.
_GENERIC = _FILLERS | {"result", "results", "value", "values"}

_KNOWN = _FRAUD | _GENUINE | _PROBABILITY | _LABEL | _AMBIGUOUS | _GENERIC


class Meaning(Enum):
    """List what a column may hold, judged by its name.

    GENERIC is a name such as `output`, which fits labels and probabilities. UNCLEAR is a name that may mean something
    else, so the column is not read.
    """

    LABEL = "label"
    FRAUD = "probability of fraud"
    PROBABILITY = "probability, probably of fraud"
    GENUINE = "probability of a genuine payment"
    GENERIC = "label or probability"
    UNCLEAR = "unclear"


def meanings_of_names(names: Sequence[object]) -> list[Meaning]:
    """Return the meaning of each of several columns.

    Columns whose names differ only in 0 and 1 (`proba_0`, `proba_1`) belong to the two classes. With another number
    beside them (`output_2`) they are UNCLEAR.
    """
    words_by_name = [_words(name) for name in names]
    stems = [frozenset(word for word in words if not word.isdigit()) for words in words_by_name]
    meanings = []
    for name, words, stem in zip(names, words_by_name, stems, strict=True):
        numbers = {
            word for other, same in zip(words_by_name, stems, strict=True) if same == stem for word in other - same
        }
        meaning = meaning_of_name(name)
        if words != stem and numbers - {"0", "1"}:
            meaning = Meaning.UNCLEAR
        elif words != stem and numbers == {"0", "1"} and stem - _FILLERS and stem <= _KNOWN and not stem & _GENUINE:
            meaning = Meaning.FRAUD if "1" in words else Meaning.GENUINE
        meanings.append(meaning)
    return meanings


def meaning_of_name(name: object) -> Meaning:
    """Return the meaning of a column's name. A single unknown word makes it UNCLEAR."""
    words = _words(name)
    if words - _KNOWN or not words or _is_numbered(words) or words >= {"p", "value"} or words & _CONFIDENCE:
        return Meaning.UNCLEAR
    if words & _GENUINE:
        return Meaning.GENUINE
    if words & _AMBIGUOUS:
        return Meaning.FRAUD if words & _FRAUD and not words & _LABEL else Meaning.UNCLEAR
    if words & _PROBABILITY:
        return Meaning.FRAUD if words & _FRAUD and not words & _PREDICTED_CLASS else Meaning.PROBABILITY
    if words & _LABEL or ("is" in words and words & {"fraud", "fraudulent"}):
        # `class_1` names a class, not a label.
        return Meaning.FRAUD if words >= {"class", "1"} else Meaning.LABEL
    return Meaning.FRAUD if words & _FRAUD else Meaning.GENERIC


def meaning_of_single_name(name: object, input_columns: Collection[str]) -> Meaning:
    """Return the meaning of the only column's name.

    The name of an input column is GENERIC: pandas gives it to a Series that is computed from that column. So is a
    number after a generic word, since there is no second column.
    """
    if name in input_columns and name != "is_fraud":
        return Meaning.GENERIC
    words = _words(name)
    if _is_numbered(words):
        return Meaning.GENERIC
    meaning = meaning_of_name(name)
    if meaning is Meaning.UNCLEAR and words & {"fraud", "fraudulent"} and not words & (_GENUINE | _CONFIDENCE):
        # An unknown word may negate `fraud`, so this is not Meaning.FRAUD.
        return Meaning.PROBABILITY
    return meaning


def _is_numbered(words: Collection[str]) -> bool:
    """Return whether the name is a generic word with a number, such as TensorFlow's `output_0`."""
    numbers = {word for word in words if word.isdigit()}
    others = set(words) - numbers
    return bool(numbers and others) and others <= _GENERIC


def mentions_probability(name: object) -> bool:
    """Return whether a column's name has a word such as `probability` or `score`."""
    return bool(_words(name) & (_PROBABILITY | _AMBIGUOUS))


def _words(name: object) -> frozenset[str]:
    """Return the words of a name such as `isFraud`, `P(fraud=1)` or `proba_1.0`, in lower case."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", str(name)).lower()
    words = re.findall(r"[^\W\d_]+|\d+(?:\.\d+)?", spaced)
    return frozenset(word.removesuffix(".0") if word[0].isdigit() else word for word in words)
