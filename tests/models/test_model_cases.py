"""The rule of scoring, held against each kind of model: a payment's score equals what the model gives for that payment
alone, in the frame that it was trained on; or the run says no before anything is published."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from include.errors import ModelError
from include.models.load import LoadedModel, load
from include.models.scoring import ScoringResult, score
from tests.models.model_cases import ModelCase, frame_of_training, model_cases, silently
from tests.models.zoo import history, payment, run_of

CASES = model_cases()
# Each changes a payment in one way that the world sends.
CHANGES: list[dict[str, Any]] = [
    {}, {"category": None}, {"gender": None}, {"category": None, "gender": None}, {"zip": 6441.5}, {"zip": 94103},
    {"zip": 94103.0}, {"zip": None}, {"amt": None}, {"amt": 700}, {"amt": 1.5}, {"category": "unheard"}, {"lat": None},
]  # fmt: skip


@pytest.fixture(scope="module")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[ModelCase, Path]]:
    """Makes each case once."""
    found: dict[str, tuple[ModelCase, Path]] = {}

    def make(name: str) -> tuple[ModelCase, Path]:
        if name not in found:
            case = silently(CASES[name])
            found[name] = case, case.save(tmp_path_factory.mktemp("kind") / "m")
        return found[name]

    return make


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other take a minute for these small frames on a busy machine."""
    with threadpool_limits(1):
        yield


def scored(model: LoadedModel, payments: list[dict[str, Any]]) -> ScoringResult:
    return silently(lambda: score(model, [json.dumps(each).encode() for each in payments]))


def expected(case: ModelCase, each: dict[str, Any]) -> tuple[int, float | None] | None:
    """What the bare model gives for the payment alone; None where it raises."""
    assert case.expected_score is not None
    if case.strict and (each["zip"] is None or each["zip"] != int(each["zip"])):
        return None
    try:
        return silently(lambda: case.expected_score(frame_of_training(each, case.names)))
    except (ValueError, TypeError):
        return None


@pytest.mark.parametrize("name", list(CASES))
def test_score_in_a_batch_equals_score_alone_or_model_is_refused(
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
def test_one_payment_whose_answer_fits_by_chance_is_not_published(
    saved_model: Callable[[str], tuple[ModelCase, Path]], name: str, amount: float
) -> None:
    case, folder = saved_model(name)
    with pytest.raises(ModelError, match=f"{case.expected_error}|returned"):
        scored(load(run_of(case.threshold), folder), [payment(amt=amount)])


SOME = st.fixed_dictionaries(
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
@given(st.lists(SOME, min_size=1, max_size=6))
def test_score_does_not_depend_on_other_rows(
    saved_model: Callable[[str], tuple[ModelCase, Path]], name: str, changes: list[dict[str, Any]]
) -> None:
    check(*saved_model(name), [payment(), *(payment(**each) for each in changes)])


def check(case: ModelCase, folder: Path, payments: list[dict[str, Any]]) -> None:
    model = silently(lambda: load(run_of(case.threshold), folder))
    together = scored(model, payments)
    for place, each in enumerate(payments):
        alone = scored(model, [each]) if place % 4 == 0 else None
        wanted = expected(case, each)
        found = int(together.prediction[place])
        assert found == (-1 if wanted is None else wanted[0]), (place, each)
        assert (place in together.refusals) == (wanted is None)
        if wanted is not None and wanted[1] is not None:
            assert together.probability[place] == pytest.approx(wanted[1], abs=1e-6)
        if alone is not None:
            assert int(alone.prediction[0]) == found
