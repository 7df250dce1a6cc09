"""A person rolls back in Airflow's UI: a real browser fills the trigger form."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, Response, expect

from dev.browser import CHROMIUM, find_chromium, open_page, open_trigger_form, sign_in
from tests.support.payments import FRAUD_FOR_LATEST, payments
from tests.support.pipeline import DAG, Outputs, Pipeline

BROWSER = find_chromium()

pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"none of the browsers {', '.join(CHROMIUM)} is installed")


@pytest.fixture
def page() -> Iterator[Page]:
    assert BROWSER is not None
    with open_page(BROWSER) as page:
        yield page


def test_previous_chosen_in_the_form_scores_with_the_previous_model(
    pipeline: Pipeline, outputs: Outputs, page: Page
) -> None:
    sign_in(page, pipeline.stack.env)
    form = open_trigger_form(page, pipeline.stack.env, DAG)
    form.locator("input[name=element_model]").fill("previous")
    pipeline.settle()
    sent = pipeline.send(payments(FRAUD_FOR_LATEST, FRAUD_FOR_LATEST))
    answer = _submit(page, form)
    assert answer.ok, answer.text()
    expect(form).to_be_hidden(timeout=60_000)

    run_id = pipeline.finish(answer.json()["dag_run_id"])
    assert pipeline.api.run(DAG, run_id)["conf"] == {"model": "previous", "keep": False, "reason": None}
    assert {message.headers["model_run_id"] for message in outputs.scored(sent)} == {pipeline.models.previous}
    assert pipeline.held() is None


def test_form_refuses_wrong_model(pipeline: Pipeline, page: Page) -> None:
    sign_in(page, pipeline.stack.env)
    form = open_trigger_form(page, pipeline.stack.env, DAG)
    form.locator("input[name=element_model]").fill("newest")
    assert _submit(page, form).status == 400
    expect(form).to_contain_text("'newest' does not match")


def _submit(page: Page, form: Locator) -> Response:
    with page.expect_response(lambda answer: answer.request.method == "POST" and "/dagRuns" in answer.url) as answer:
        form.get_by_test_id("trigger-dag-submit").click()
    return answer.value
