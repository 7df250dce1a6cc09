"""Drive Airflow's UI in an installed Chromium with Playwright, for the browser test and the README's screenshots."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from playwright.sync_api import Locator, Page, sync_playwright

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
_TIMEOUT_MS = 30_000


def find_chromium() -> str | None:
    """Return the path of an installed Chromium or Chrome, or None."""
    return next((path for path in map(shutil.which, CHROMIUM) if path), None)


@contextmanager
def open_page(chromium: str, *, width: int = 1200, height: int = 800) -> Iterator[Page]:
    """Open a page of the given size in pixels, and close the browser at the end."""
    # Chromium's sandbox does not run as root, as most containers do.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        try:
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="light")
            page.set_default_timeout(_TIMEOUT_MS)
            yield page
        finally:
            browser.close()


def sign_in(page: Page, environment: Mapping[str, str]) -> None:
    """Sign in to Airflow with the login of `environment`, the variables of `stack.env`."""
    page.goto(environment["AIRFLOW_URL"])
    page.get_by_label("Username").fill(environment["AIRFLOW_USERNAME"])
    page.get_by_label("Password").fill(environment["AIRFLOW_PASSWORD"])
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("link", name="Dags", exact=True).first.wait_for()


def open_trigger_form(page: Page, environment: Mapping[str, str], dag_id: str) -> Locator:
    """Open the form that triggers a DAG, and return it when its fields are ready."""
    page.goto(f"{environment['AIRFLOW_URL']}/dags/{dag_id}")
    page.get_by_role("button", name="Trigger Dag").click()
    form = page.get_by_role("dialog")
    form.locator("input[name=element_model]").wait_for()
    return form
