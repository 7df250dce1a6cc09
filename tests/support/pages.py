"""What the documentation has people type, so that tests run just that."""

from __future__ import annotations

import re
from pathlib import Path

_DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, begins: str) -> list[str]:
    """The indented blocks of docs/`page` that begin so."""
    text = (_DOCS / page).read_text()
    return [block for block in re.findall(r"(?:^ {4}.*\n)+", text, re.MULTILINE) if block.strip().startswith(begins)]


def block(page: str, begins: str) -> str:
    """The only one."""
    (found,) = blocks(page, begins)
    return found
