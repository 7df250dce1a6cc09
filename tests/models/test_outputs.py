from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from include.errors import ModelError
from include.models.output_reader import OutputReader
from include.models.outputs import parse_labels


@pytest.mark.parametrize(
    "values",
    [
        [0, 1, 1], [False, True, True], [0.0, 1.0, 1.0], ["0", "1", "1"], ["0.0", "1.0", "1.0"],
        ["False", "True", "true"],
        np.array([0, 1, 1], dtype=np.uint8), pd.Series([0, 1, 1]), np.array([0, 1, True], dtype=object),
    ],
)  # fmt: skip
def test_labels_are_read_from_booleans_numbers_and_texts(values: Any) -> None:
    assert parse_labels(values).tolist() == [0, 1, 1]


@pytest.mark.parametrize("values", [[0.0, np.nan], ["0", None], pd.Series(["0", None], dtype="str")])
def test_missing_label_becomes_minus_one(values: Any) -> None:
    assert parse_labels(values).tolist() == [0, -1]


@pytest.mark.parametrize(
    ("values", "message"),
    [([-1, 1], "returned -1"), ([0.5, 1], "returned 0.5"), (["Ann Smith"], "returned a str"), ([[0, 1]], "shape")],
)
def test_error_shows_unknown_number_but_not_text(values: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        parse_labels(values)
    assert "Ann" not in str(caught.value)


@pytest.mark.parametrize(
    ("output", "threshold", "prediction", "probability"),
    [
        (np.array([0, 1]), None, [0, 1], None),
        ([0, 1], None, [0, 1], None),
        (np.array([0.2, 0.5]), None, [0, 1], [0.2, 0.5]),
        (np.array([0.2, 0.31]), 0.3, [0, 1], [0.2, 0.31]),
        (np.array([[0.8, 0.2], [0.4, 0.6]]), None, [0, 1], [0.2, 0.6]),
        (np.array([[0.2], [0.6]]), None, [0, 1], [0.2, 0.6]),
        (pd.DataFrame({"output": [0.2, 0.6]}), None, [0, 1], [0.2, 0.6]),
        (pd.DataFrame([0.2, 0.6]), None, [0, 1], [0.2, 0.6]),
        ({"output_0": [0.2, 0.6]}, None, [0, 1], [0.2, 0.6]),
        (pd.DataFrame([0, 1]), None, [0, 1], None),
        (pd.DataFrame({"y_pred": [0, 1], "y_proba": [0.2, 0.6]}), None, [0, 1], [0.2, 0.6]),
        (pd.DataFrame({"prediction": [0, 1], "predict_proba": [0.2, 0.6]}), 0.1, [1, 1], [0.2, 0.6]),
        (pd.DataFrame({"prob_class_0": [0.8, 0.4], "prob_class_1": [0.2, 0.6]}), None, [0, 1], [0.2, 0.6]),
        (pd.DataFrame({"label": [0, 1], "P(fraud=1)": [0.2, 0.6]}), 0.1, [1, 1], [0.2, 0.6]),
        (pd.DataFrame({"our_fraud_probability": [0.2, 0.6]}), None, [0, 1], [0.2, 0.6]),
        (pd.DataFrame({"isFraud": [0, 1], "fraudProbability": [0.2, 0.6]}), 0.1, [1, 1], [0.2, 0.6]),
        (pd.DataFrame({"class": [0, 1], "class_1": [0.2, 0.6], "class_0": [0.8, 0.4]}), 0.1, [1, 1], [0.2, 0.6]),
        # A segment of payments may have a threshold of its own.
        (pd.DataFrame({"prediction": [1, 0], "fraud_probability": [0.3, 0.6]}), None, [1, 0], [0.3, 0.6]),
        (pd.DataFrame({"Scored Labels": [0, 1], "Scored Probabilities": [0.2, 0.6]}), 0.1, [1, 1], [0.2, 0.6]),
        (pd.DataFrame({"fraud": [False, True], "fraud_probability": [0.2, 0.6]}), None, [0, 1], [0.2, 0.6]),
        (pd.DataFrame({"is_fraudulent": [0, 1], "probability": [0.2, 0.6]}), None, [0, 1], [0.2, 0.6]),
        (pd.DataFrame({".pred_class": [0, 1], ".pred_0": [0.8, 0.4], ".pred_1": [0.2, 0.6]}), 0.1, [1, 1], [0.2, 0.6]),
        (
            pd.DataFrame({"is_fraud_1_PREDICTION": [0.2, 0.6], "is_fraud_0_PREDICTION": [0.8, 0.4]}),
            None,
            [0, 1],
            [0.2, 0.6],
        ),
        (pd.DataFrame({"amt": [7, 9], "fraud": [0.2, 0.6]}), None, [0, 1], [0.2, 0.6]),
        ([np.float64(0.2), None], None, [0, -1], [0.2, np.nan]),
        (pd.Series([np.float64(0.2), pd.NA], dtype=object), None, [0, -1], [0.2, np.nan]),
        (pd.DataFrame({"proba": np.array([0.2, pd.NA], dtype=object)}), None, [0, -1], [0.2, np.nan]),
        ([None, 1], None, [-1, 1], None),
        (pd.DataFrame({"prediction": [0, 1], "probability": [0.2, 0.4]}), None, [0, 1], [0.2, 0.4]),
        (pd.DataFrame({"prediction": [0, 1], "probability": [0.2, 0.4]}), 0.5, [0, 0], [0.2, 0.4]),
        (pd.DataFrame({"label": [0, 1], "Fraud-Proba": [0.2, 0.6]}), None, [0, 1], [0.2, 0.6]),
        (pd.DataFrame([[0.8, 0.2], [0.4, 0.6]]), None, [0, 1], [0.2, 0.6]),
        (pd.DataFrame({"fraud": [0.2, 0.6], "genuine": [0.8, 0.4]}), None, [0, 1], [0.2, 0.6]),
        (pd.DataFrame({"fraud": [0, 1]}), None, [0, 1], None),
        (pd.DataFrame({"label": [0, 1], "score": [0.9, 0.8]}), None, [0, 1], None),
        ([{"label": "0", "p_fraud": 0.1}, {"label": "1", "p_fraud": 0.8}], None, [0, 1], [0.1, 0.8]),
        (pd.Series([0.6, 0.2], index=[1, 0]), None, [0, 1], [0.2, 0.6]),
        (pd.Series([0.2, None], dtype="Float64"), None, [0, -1], [0.2, np.nan]),
        (np.array([0.0, 1.0]), None, [0, 1], None),
        ([0.2, None], None, [0, -1], [0.2, np.nan]),
        (pd.Series([0.2, 0.6], dtype=object), None, [0, 1], [0.2, 0.6]),
        (pd.Series([0.2, 0.6], name="amt"), None, [0, 1], [0.2, 0.6]),
        (pd.DataFrame({"prediction": [0, np.nan], "proba": [0.2, np.nan]}), None, [0, -1], [0.2, np.nan]),
        (pd.DataFrame({"fraud_probability": [0, 1]}), 0.3, [0, 1], [0.0, 1.0]),
        (np.ma.masked_array([0.2, 0.9], [False, True]), None, [0, -1], [0.2, np.nan]),
        (np.array([0.2, 1 + 1e-8]), None, [0, 1], [0.2, 1.0]),
        ({"Prediction": ["0", "1"], "note": ["a", "b"]}, None, [0, 1], None),
        (pd.Series([True, False]), None, [1, 0], None),
        (np.array([0.2, np.nan]), None, [0, -1], [0.2, np.nan]),
    ],
)
def test_output_is_read_as_labels_and_probabilities(
    output: Any, threshold: float | None, prediction: list[int], probability: list[float] | None
) -> None:
    scores = OutputReader(threshold, {"amt", "category"}).read(output, 2)
    assert scores.prediction.tolist() == prediction
    if probability is None:
        assert scores.probability is None
    else:
        assert np.array_equal(scores.probability, probability, equal_nan=True)


@pytest.mark.parametrize(
    ("output", "threshold", "message"),
    [
        (np.array([0.1, 1.7]), None, "returned 1.7"),
        (np.array([0, 1, 1]), None, r"shape \(3,\) for 2 payments"),
        (np.array(1), None, "for 2 payments"),
        (None, None, "for 2 payments"),
        (np.array([[0, 1, 0], [1, 0, 0]]), None, r"shape \(2, 3\)"),
        (np.array([0, 1]), 0.3, "needs a model that returns probabilities"),
        (np.array([[2.1, -2.1], [-1.0, 1.0]]), None, "returned"),
        (np.array([[0.2, 0.2], [0.4, 0.4]]), None, "add up to 0.4"),
        (pd.DataFrame({"a": [0.2, 0.6], "b": [0.8, 0.4]}), None, "the columns a, b, whose names do not say"),
        (
            {"output_0": [0.2, 0.6], "output_1": [0.8, 0.4]},
            None,
            "the columns output_0, output_1, whose names do not say",
        ),
        (pd.DataFrame({"genuine": [0.2, 0.6]}), None, "the columns genuine, whose names do not say"),
        (pd.DataFrame({1: [0.8, 0.4], 2: [0.2, 0.6]}), None, "whose names do not say"),
        (pd.DataFrame({"prediction": [0, 1], "fraud_confidence": [0.9, 0.8]}), 0.3, "beside fraud_confidence"),
        (pd.DataFrame({"prediction": [[0], [1]]}), None, "cannot be read"),
        (pd.DataFrame({"probability": [[0.8, 0.2], [0.4, 0.6]], "prediction": [0, 1]}), None, "not numbers .list"),
        (pd.DataFrame({"proba": [0.2, 0.6], "probability": [0.8, 0.4]}), None, "mean the same"),
        (pd.DataFrame({"prediction": [1, 0], "probability": [0.2, 0.6]}), None, "contradict each other"),
        (pd.DataFrame({"label": [0, 1], "score": [0.9, 0.8]}), 0.3, "label beside score"),
        (pd.Series([0.2, 0.6], index=["a", "b"]), None, "index differs from its input"),
        (pd.DataFrame({"Score": [0.2, 0.6]}), None, "the columns Score, whose names do not say"),
        (pd.DataFrame({"confidence": [0.2, 0.6]}), None, "the columns confidence, whose names do not say"),
        (np.array([0.0, 1.0]), 0.3, "needs a model that returns probabilities"),
        (pd.DataFrame({"label": [0.0, 1.0], "score": [0.9, 0.4]}), 0.3, "needs a model that returns probabilities"),
        (pd.Series([0.2, 0.6], name="genuine"), None, "the columns genuine, whose names do not say"),
        (pd.Series([0.2, 0.6], name="confidence"), None, "the columns confidence, whose names do not say"),
        *(
            (pd.DataFrame({name: [0.2, 0.6]}), None, "whose names do not say")
            for name in (
                "approval_probability",
                "nonfraud_probability",
                "fraud_free_probability",
                "prob_class_0",
                "probability(0)",
                "fraud=0",
                "P(genuine)",
                "prob_benign",
                "p_negative",
                "safe",
                "no_fraud_score",
                "any",
                "0",
                "notFraud",
                "fraud_0",
            )
        ),
        (pd.DataFrame({"fraud_probability": ["HIGH", 0.2]}), None, "not numbers"),
        (pd.Series([0.2], index=[0]), None, "1 rows for 2 payments"),
        ((np.array([0, 1]), np.array([0.2, 0.6])), None, "a tuple of 2"),
        ({"prediction": 1}, None, "cannot be converted to a DataFrame"),
    ],
)
def test_unclear_output_raises_error(output: Any, threshold: float | None, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        OutputReader(threshold).read(output, 2)


def test_high_probabilities_of_genuine_labels_contradict() -> None:
    """Batches without any fraud label suffice to see it."""
    reader = OutputReader(None)
    genuine_only = pd.DataFrame({"prediction": [0] * 10, "probability": [0.97] * 10})
    assert reader.read(genuine_only, 10).prediction.tolist() == [0] * 10
    with pytest.raises(ModelError, match="contradict each other"):
        reader.read(genuine_only, 10)


def test_labels_and_probabilities_are_compared_across_calls() -> None:
    reader = OutputReader(None)
    reader.read(pd.DataFrame({"prediction": [0], "probability": [0.6]}), 1)
    with pytest.raises(ModelError, match="contradict each other"):
        reader.read(pd.DataFrame({"prediction": [1], "probability": [0.55]}), 1)


@pytest.mark.parametrize("later", [[0, 0], [1, 0], pd.DataFrame({"fraud": [0, 1]}), pd.DataFrame({"output": [0, 1]})])
def test_whole_numbers_after_fractions_are_probabilities(later: Any) -> None:
    reader = OutputReader(0.3)
    assert reader.read(pd.DataFrame({"fraud": [0.0, 0.25]}), 2).probability is not None
    assert reader.read(later, 2).probability is not None


def test_column_fraud_with_zeros_and_ones_holds_labels() -> None:
    for values in ([0.0, 1.0], [False, True], ["0", "1"]):
        scores = OutputReader(None).read(pd.DataFrame({"fraud": values}), 2)
        assert (scores.prediction.tolist(), scores.probability) == ([0, 1], None)


def test_is_fraud_of_the_input_is_not_the_models_label() -> None:
    input_is_fraud = pd.Series([None, None], dtype=object)
    unchanged = pd.DataFrame({"is_fraud": input_is_fraud, "fraud_probability": [0.2, 0.6]})
    assert OutputReader(None, {"is_fraud"}).read(unchanged, 2, input_is_fraud).prediction.tolist() == [0, 1]
    replaced = pd.DataFrame({"is_fraud": [1, 1], "fraud_probability": [0.2, 0.6]})
    assert OutputReader(None, {"is_fraud"}).read(replaced, 2, input_is_fraud).prediction.tolist() == [1, 1]


def test_nulls_only_are_missing_probabilities_after_fractions() -> None:
    reader = OutputReader(None)
    assert reader.read([0.2, None], 2).probability is not None
    nulls = reader.read([None], 1)
    assert (nulls.prediction.tolist(), np.isnan(nulls.probability).tolist()) == ([-1], [True])


def test_zeros_and_ones_become_probabilities_after_fractions() -> None:
    reader = OutputReader(None)
    assert reader.read(np.array([0.0, 1.0]), 2).probability is None
    assert reader.read(np.array([0.0, 0.25]), 2).probability is not None
    assert reader.read(np.array([0.0, 1.0]), 2).probability is not None
