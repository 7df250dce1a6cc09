"""Take the README's pictures of a running stack that has scored payments: `python -m dev.screenshots [--home DIR]`."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import Page, expect

from dev.airflow_api import AirflowApi
from dev.browser import find_chromium, open_page, open_trigger_form, sign_in
from dev.demo.demo_runs import DAG
from dev.stack import Stack
from dev.stack.part import ROOT

IMAGES = ROOT / "docs" / "images"


def main() -> int:
    """Write the pictures. Return 1 if the stack is not up or no Chromium is installed."""
    parser = argparse.ArgumentParser(prog="python -m dev.screenshots", description=__doc__)
    parser.add_argument("--home", default=".local", help="folder of the stack (default .local)")
    environment = Stack(parser.parse_args().home).env
    chromium = find_chromium()
    if chromium is None or not environment:
        print("screenshots: no Chromium is installed" if environment else "screenshots: the stack is not up")
        return 1
    IMAGES.mkdir(parents=True, exist_ok=True)
    with open_page(chromium, width=1200, height=620) as page:
        sign_in(page, environment)
        _graph(page, environment, IMAGES / "graph.png")
        page.set_viewport_size({"width": 1200, "height": 1100})
        _trigger_form(page, environment, IMAGES / "trigger_form.png")
        _mail(page, environment, IMAGES / "mail.png")
    return 0


def _graph(page: Page, environment: Mapping[str, str], file: Path) -> None:
    """Show the newest run that mailed a report."""
    api = AirflowApi(environment)
    runs = [run["dag_run_id"] for run in api.runs(DAG, limit=50) if run["state"] == "success"]
    run_id = next(run for run in runs if api.tasks(DAG, run)["email"]["state"] == "success")
    page.goto(f"{environment['AIRFLOW_URL']}/dags/{DAG}/runs/{quote(run_id)}")
    page.get_by_role("button", name="Show Graph").click()
    expect(page.locator(".react-flow__node").first).to_be_visible(timeout=20_000)
    page.get_by_role("button", name="Collapse Details Panel").click()
    page.get_by_role("button", name="Fit View").click()
    # The view moves for about a second.
    page.wait_for_timeout(2_000)
    page.screenshot(path=file)


def _trigger_form(page: Page, environment: Mapping[str, str], file: Path) -> None:
    form = open_trigger_form(page, environment, DAG)
    form.locator("input[name=element_model]").fill("previous")
    # A drawn switch hides the input itself.
    form.locator("label", has=page.locator("input[name=element_keep]")).click()
    expect(form.locator("input[name=element_keep]")).to_be_checked()
    form.locator("input[name=element_reason]").fill("false alarms since noon")
    form.locator("input[name=element_reason]").blur()
    form.screenshot(path=file)


def _mail(page: Page, environment: Mapping[str, str], file: Path) -> None:
    """Show the newest report with at least five frauds."""
    page.set_viewport_size({"width": 800, "height": 1000})
    page.goto(environment["MAIL_URL"])
    page.get_by_role("link", name=re.compile(r"Fraud detected: ([5-9]|\d\d+) payments")).first.click()
    expect(page.frame_locator("iframe").get_by_text("Please review")).to_be_visible()
    bottom = page.locator("iframe").evaluate("frame => frame.getBoundingClientRect().bottom + 16")
    page.screenshot(path=file, clip={"x": 0, "y": 0, "width": 800, "height": bottom})


if __name__ == "__main__":
    sys.exit(main())
