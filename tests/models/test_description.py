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


def test_parse_reads_inputs_and_threshold() -> None:
    description = Description.parse(mlmodel("amt", metadata={"threshold": "0.3"}))
    assert description.inputs == (Column("amt", "float64"),)
    assert description.threshold == 0.3


@pytest.mark.parametrize("text", ["", "flavors: []", "[]", "flavors: {a: {}}\nsignature: {inputs: '{'}", "a: ["])
def test_text_that_is_not_an_mlmodel_raises_model_error(text: str) -> None:
    with pytest.raises(ModelError, match="MLmodel"):
        Description.parse(text).check_columns(None)


def test_signature_of_tensors_names_no_columns() -> None:
    tensors = json.dumps([{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 3]}}])
    assert Description.parse(yaml.safe_dump({"flavors": {"x": {}}, "signature": {"inputs": tensors}})).inputs is None


def test_error_names_column_that_no_payment_has() -> None:
    description = Description.parse(mlmodel("amt", "device", "unix_time"))
    with pytest.raises(ModelInputError, match=r"do not have: device; payments have: trans_date_.*, is_fraud$"):
        description.check_columns({"amt"})
    description.check_columns({"device"})


@pytest.mark.parametrize("payment_columns", [None, ()])
def test_columns_are_not_checked_if_those_of_payments_are_unknown(payment_columns: tuple[str, ...] | None) -> None:
    Description.parse(mlmodel("device")).check_columns(payment_columns)


def test_error_counts_additional_columns_without_their_names() -> None:
    description = Description.parse(mlmodel("device"))
    with pytest.raises(
        ModelInputError, match=r"do not have: device; payments have: .*, is_fraud and 2 others$"
    ) as error:
        description.check_columns({"amt", "4613314721966198765", "Kimberly Myers"})
    assert "4613314721966198765" not in str(error.value)
    assert "Kimberly" not in str(error.value)


def test_signature_of_scikit_learn_model_is_not_checked() -> None:
    Description.parse(mlmodel("device", flavor="sklearn")).check_columns({"amt"})


@pytest.mark.parametrize(
    ("value", "threshold"), [(None, None), (0.5, None), ("0.5", None), (0.3, 0.3), ("1e-3", 0.001)]
)
def test_threshold_of_one_half_means_none(value: object, threshold: float | None) -> None:
    assert parse_threshold(value, "here") == threshold


@pytest.mark.parametrize("value", ["high", 0, 1, 1.5, -0.1, "nan", [0.3]])
def test_threshold_outside_0_and_1_raises_model_error(value: object) -> None:
    with pytest.raises(ModelError, match=r"threshold .* in here"):
        parse_threshold(value, "here")
