"""Tests of the rule of scoring for each kind of model.

A payment's score equals what the model gives for that payment alone, in a frame with the types of the training frame;
or scoring raises an error before anything is published.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from include.errors import ModelError
from include.models.load import LoadedModel, load
from include.models.scoring import ScoringResult, score
from tests.models.model_cases import ModelCase, model_cases, payment_frame, without_warnings
from tests.models.zoo import history, payment, run_of

CASES = model_cases()
# Each changes a payment in a way that producers do.
CHANGES: list[dict[str, Any]] = [
    {}, {"category": None}, {"gender": None}, {"category": None, "gender": None}, {"zip": 6441.5}, {"zip": 94103},
    {"zip": 94103.0}, {"zip": None}, {"amt": None}, {"amt": 700}, {"amt": 1.5}, {"category": "unheard"}, {"lat": None},
]  # fmt: skip


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[ModelCase, Path]]:
    """Return a function that trains and saves the model of a case once, and returns the case and the folder."""

    @cache
    def save(name: str) -> tuple[ModelCase, Path]:
        case: ModelCase = without_warnings(CASES[name])
        return case, case.save(tmp_path_factory.mktemp("kind") / "m")

    return save


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Run in one thread: threads that wait for each other take a minute for these small frames on a busy machine."""
    with threadpool_limits(1):
        yield


def scored(model: LoadedModel, payments: list[dict[str, Any]]) -> ScoringResult:
    return without_warnings(lambda: score(model, [json.dumps(each).encode() for each in payments]))


def expected(case: ModelCase, each: dict[str, Any]) -> tuple[int, float | None] | None:
    """Return what the bare model gives for the payment alone, None if it raises."""
    assert case.expected_score is not None
    if case.strict and (each["zip"] is None or each["zip"] != int(each["zip"])):
        return None
    try:
        return without_warnings(lambda: case.expected_score(payment_frame(each, case.names)))
    except (ValueError, TypeError):
        return None


@pytest.mark.parametrize("name", list(CASES))
def test_score_in_a_batch_equals_score_alone_or_model_is_rejected(
    saved_model: Callable[[str], tuple[ModelCase, Path]], name: str
) -> None:
    case, folder = saved_model(name)
    ordinary = [{**payment(), **each} for each in history(16, seed=9)[0].to_dict("records")]
    payments = ordinary + [payment(**{"amt": 110.0, **change}) for change in CHANGES]
    if case.expected_score is None:
        with pytest.raises(ModelError, match=case.expected_error):
            scored(load(run_of(case.threshold), folder), payments)
        return
    check(case, folder, payments)
    assert {expected(case, each)[0] for each in payments if expected(case, each)} == {0, 1}  # type: ignore[index]


@pytest.mark.parametrize(
    ("name", "amount"),
    [
        ("margins in a vote", 110.0), ("classifier of percents", 1.5), ("pyfunc percent", 1.5),
        ("pyfunc margins", 250.0),
        ("pyfunc labels 1 and 2", 12.0), ("pyfunc isolation forest", 110.0), ("pyfunc risk score", 1.5),
    ],
)  # fmt: skip
def test_single_payment_with_plausible_output_by_chance_raises_model_error(
    saved_model: Callable[[str], tuple[ModelCase, Path]], name: str, amount: float
) -> None:
    case, folder = saved_model(name)
    with pytest.raises(ModelError, match=f"{case.expected_error}|returned"):
        scored(load(run_of(case.threshold), folder), [payment(amt=amount)])


CHANGED_FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "category": st.sampled_from(["home", "travel", "unheard", None]),
        "gender": st.sampled_from(["F", "M", None]),
        "zip": st.sampled_from([6441, 94103, 94103.0, 6441.5, None]),
        "amt": st.one_of(st.none(), st.integers(1, 1000), st.floats(1, 1000)),
        "city_pop": st.sampled_from([5438, 5438.0, 12.25, None]),
        "lat": st.sampled_from([41.5, 41, None]),
    },
)


@pytest.mark.parametrize(
    "name", ["one-hot that ignores unknown texts", "numbers as text", "ordinal encoder and boosting", "XGBoost"]
)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(CHANGED_FIELDS, min_size=1, max_size=6))
def test_score_does_not_depend_on_other_rows(
    saved_model: Callable[[str], tuple[ModelCase, Path]], name: str, changes: list[dict[str, Any]]
) -> None:
    check(*saved_model(name), [payment(), *(payment(**each) for each in changes)])


def check(case: ModelCase, folder: Path, payments: list[dict[str, Any]]) -> None:
    model = without_warnings(lambda: load(run_of(case.threshold), folder))
    together = scored(model, payments)
    for index, each in enumerate(payments):
        score_alone = expected(case, each)
        prediction = int(together.prediction[index])
        assert prediction == (-1 if score_alone is None else score_alone[0]), (index, each)
        assert (index in together.refusals) == (score_alone is None)
        if score_alone is not None and score_alone[1] is not None:
            assert together.probability[index] == pytest.approx(score_alone[1], abs=1e-6)
        if index % 4 == 0:
            assert int(scored(model, [each]).prediction[0]) == prediction
