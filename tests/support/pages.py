"""Commands in the documentation, so that tests run exactly those."""

from __future__ import annotations

import re
from pathlib import Path

_DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, begins: str) -> list[str]:
    """Return the indented blocks of docs/`page` that begin with `start`."""
    text = (_DOCS / page).read_text()
    return [block for block in re.findall(r"(?:^ {4}.*\n)+", text, re.MULTILINE) if block.strip().startswith(begins)]


def block(page: str, begins: str) -> str:
    """Return the only such block."""
    (found,) = blocks(page, begins)
    return found
