from __future__ import annotations

import json

import pytest
import yaml

from include.errors import ModelError, ModelInputError
from include.models.column import Column
from include.models.description import Description, parse_threshold


def mlmodel(*names: str, flavor: str = "python_function", **more: object) -> str:
    inputs = [{"name": name, "type": "double"} for name in names]
    return yaml.safe_dump({"flavors": {flavor: {}}, "signature": {"inputs": json.dumps(inputs)}, **more})


def test_inputs_and_threshold_are_read() -> None:
    description = Description.parse(mlmodel("amt", metadata={"threshold": "0.3"}))
    assert description.inputs == (Column("amt", "float64"),)
    assert description.threshold == 0.3


@pytest.mark.parametrize("text", ["", "flavors: []", "[]", "flavors: {a: {}}\nsignature: {inputs: '{'}", "a: ["])
def test_what_is_no_mlmodel_is_said(text: str) -> None:
    with pytest.raises(ModelError, match="MLmodel"):
        Description.parse(text).check_columns(None)


def test_a_signature_of_tensors_names_no_columns() -> None:
    tensors = json.dumps([{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 3]}}])
    assert Description.parse(yaml.safe_dump({"flavors": {"x": {}}, "signature": {"inputs": tensors}})).inputs is None


def test_a_column_that_no_payment_has_is_named() -> None:
    description = Description.parse(mlmodel("amt", "device", "unix_time"))
    with pytest.raises(ModelInputError, match=r"do not have: device; payments have: trans_date_.*, is_fraud$"):
        description.check_columns({"amt"})
    description.check_columns({"device"})


@pytest.mark.parametrize("seen", [None, ()])
def test_without_knowing_the_payments_nothing_is_said_of_their_columns(seen: tuple[str, ...] | None) -> None:
    Description.parse(mlmodel("device")).check_columns(seen)


def test_names_that_others_gave_their_columns_are_not_told() -> None:
    description = Description.parse(mlmodel("device"))
    with pytest.raises(
        ModelInputError, match=r"do not have: device; payments have: .*, is_fraud and 2 others$"
    ) as told:
        description.check_columns({"amt", "4613314721966198765", "Kimberly Myers"})
    assert "4613314721966198765" not in str(told.value)
    assert "Kimberly" not in str(told.value)


def test_a_scikit_learn_models_signature_may_name_more_than_it_takes() -> None:
    Description.parse(mlmodel("device", flavor="sklearn")).check_columns({"amt"})


@pytest.mark.parametrize(
    ("value", "threshold"), [(None, None), (0.5, None), ("0.5", None), (0.3, 0.3), ("1e-3", 0.001)]
)
def test_thresholds(value: object, threshold: float | None) -> None:
    assert parse_threshold(value, "here") == threshold


@pytest.mark.parametrize("value", ["high", 0, 1, 1.5, -0.1, "nan", [0.3]])
def test_a_threshold_that_is_no_probability_is_refused(value: object) -> None:
    with pytest.raises(ModelError, match=r"threshold .* in here"):
        parse_threshold(value, "here")
