"""The hint at the hold in an error of a held model."""

from __future__ import annotations

import json

import pytest

from fraud_scoring.held_model import mention_hold
from include.errors import ModelInputError, SettingError
from include.models.model_run import ModelRun

HELD_RUN, OTHER_RUN = "a" * 32, "b" * 32
HOLD = {"run_id": HELD_RUN, "asked": "latest", "reason": None, "who": "ann", "since": "2026-11-24T08:00:00+00:00"}


def model_run(run_id: str) -> ModelRun:
    return ModelRun(run_id, "models:/m-1", "payments", None, None, "latest", "default", None, "", None)


def error_of(run_id: str) -> str:
    with pytest.raises(ModelInputError) as error, mention_hold(model_run(run_id)):
        raise ModelInputError("the payments lack the column age")
    return str(error.value)


def test_error_of_the_held_model_says_how_to_end_the_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_FRAUD_MODEL_HOLD", json.dumps(HOLD))
    assert error_of(HELD_RUN).startswith("the payments lack the column age. ")
    assert '{"model": "latest", "keep": true}' in error_of(HELD_RUN)
    assert error_of(OTHER_RUN) == "the payments lack the column age"


def test_error_is_unchanged_without_a_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_FRAUD_MODEL_HOLD", "")
    assert error_of(HELD_RUN) == "the payments lack the column age"


def test_other_errors_are_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_VAR_FRAUD_MODEL_HOLD", json.dumps(HOLD))
    with pytest.raises(SettingError, match=r"^not about the model$"), mention_hold(model_run(HELD_RUN)):
        raise SettingError("not about the model")
