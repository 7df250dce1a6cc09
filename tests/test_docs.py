"""What the documents promise: links that lead somewhere, and every dead letter's code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from include.ledger import prediction_row
from include.models.refusals import MODEL_REFUSED

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    links = re.findall(r'\]\(([^)#\s]+)|(?:src|href)="([^"]+)"', page.read_text())
    local = [link for pair in links for link in pair if link and "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_every_code_of_a_dead_letter_is_documented():
    sources = [path.read_text() for path in (ROOT / "include").rglob("*.py")]
    codes = {code for text in sources for code in re.findall(r'Refusal\(\s*"(\w+)"', text)}
    codes.add(MODEL_REFUSED)
    # Of the headers that say how a payment was scored, two may be missing.
    codes |= {f"bad_{name}" for name in prediction_row._SCORING}
    codes |= {f"no_{name}" for name in prediction_row._SCORING if name not in ("model_name", "model_version")}
    assert {"not_json", "model_refused", "bad_source", "no_scored_at"} < codes
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", (ROOT / "docs" / "messages.md").read_text(), re.MULTILINE)
    documented = {code for row in rows for code in re.findall(r"\w+", row)}
    assert codes - documented == set()
