from __future__ import annotations

import json
import re

import pytest

from include.errors import RunConfigurationError, SettingError
from include.models.selection import MODEL_PATTERN, Hold, ModelChoice

RUN_ID = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    "model",
    [
        "latest",
        "previous",
        RUN_ID,
        "models:/fraud@champion",
        "models:/card fraud/12",
        f"models:/m-{RUN_ID}",
        f"runs:/{RUN_ID}/my model",
        f"runs:/{RUN_ID}/models/best",
    ],
)
def test_allowed_model_is_parsed_and_matches_pattern_of_trigger_form(model: str) -> None:
    assert ModelChoice.parse({"model": model, "keep": True, "reason": " too many alarms "}) == ModelChoice(
        model, True, "too many alarms"
    )
    assert re.search(MODEL_PATTERN, model)


@pytest.mark.parametrize("conf", [{}, {"model": None}, {"model": ""}, {"model": " ", "keep": False, "reason": None}])
def test_empty_values_are_no_choice(conf: dict[str, object]) -> None:
    assert ModelChoice.parse(conf).is_empty


@pytest.mark.parametrize(
    "model",
    [
        "newest",
        "LATEST",
        RUN_ID[:-1],
        RUN_ID.upper(),
        "models:/fraud",
        "models:/fraud/Production",
        "models:/a:b/1",
        "runs:/x",
        f"runs:/{RUN_ID}",
        f"runs:/{RUN_ID}/../other",
        f"runs:/{RUN_ID}/it's",
        "models:/m-0123",
        "models://ann:secret@databricks/fraud/1",
        "models:/../fraud/1",
        "/var/models/fraud",
        "file:///var/models/fraud",
        "s3://bucket/fraud",
        "https://example.org/fraud",
        "mlflow-artifacts:/1/fraud",
    ],
)
def test_error_for_another_model_lists_what_is_allowed(model: str) -> None:
    with pytest.raises(RunConfigurationError, match=r"latest, previous, an MLflow run id .* models:/name@alias"):
        ModelChoice.parse({"model": model})
    assert not re.search(MODEL_PATTERN, model)


@pytest.mark.parametrize(
    ("conf", "message"),
    [
        ({"modell": "latest"}, r"\['modell'\]; allowed: model, keep, reason"),
        ({"keep": True}, "without a model"),
        ({"model": "latest", "keep": "true"}, "keep='true'"),
        ({"model": "latest", "keep": 1}, "keep=1"),
        ({"model": 5}, "model=5"),
        ({"model": "latest", "reason": ["x"]}, "reason="),
    ],
)
def test_error_names_invalid_key_and_value(conf: dict[str, object], message: str) -> None:
    with pytest.raises(RunConfigurationError, match=message):
        ModelChoice.parse(conf)


def test_keep_with_latest_ends_hold() -> None:
    assert ModelChoice.parse({"model": "latest", "keep": True}).ends_hold
    assert not ModelChoice.parse({"model": "latest"}).ends_hold
    assert not ModelChoice.parse({"model": "previous", "keep": True}).ends_hold


def test_hold_is_restored_from_its_json() -> None:
    hold = Hold(RUN_ID, "previous", "too many alarms", "ann", "2026-01-31T10:00:00+00:00")
    assert Hold.from_json(hold.to_json()) == hold
    assert hold.pinned == RUN_ID


@pytest.mark.parametrize(
    "text",
    [
        "", "previous", "[]", "{}", "null", json.dumps({"run_id": RUN_ID}),
        json.dumps({"run_id": "x", "asked": "a", "reason": None, "who": "w", "since": "s"}),
        json.dumps({"run_id": 5, "asked": "a", "reason": None, "who": "w", "since": "s"}),
    ],
)  # fmt: skip
def test_error_for_invalid_hold_says_how_to_end_it(text: str) -> None:
    with pytest.raises(SettingError, match=r'fraud_model_hold .*end the hold.*"model": "latest", "keep": true'):
        Hold.from_json(text)
