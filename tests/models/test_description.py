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
    with pytest.raises(ModelInputError, match="do not have: device; payments have: trans_date_trans_time, "):
        description.check_columns(None)
    description.check_columns({"device"})


def test_a_scikit_learn_models_signature_may_name_more_than_it_takes() -> None:
    Description.parse(mlmodel("device", flavor="sklearn")).check_columns(None)


@pytest.mark.parametrize(
    ("value", "threshold"), [(None, None), (0.5, None), ("0.5", None), (0.3, 0.3), ("1e-3", 0.001)]
)
def test_thresholds(value: object, threshold: float | None) -> None:
    assert parse_threshold(value, "here") == threshold


@pytest.mark.parametrize("value", ["high", 0, 1, 1.5, -0.1, "nan", [0.3]])
def test_a_threshold_that_is_no_probability_is_refused(value: object) -> None:
    with pytest.raises(ModelError, match=r"threshold .* in here"):
        parse_threshold(value, "here")
