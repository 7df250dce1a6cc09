"""Keep results as JSON, show them as tables and write them into the docs."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.tables import Table, tables
from dev.stack.part import ROOT

PAGE = ROOT / "docs" / "benchmarks.md"
PAGES = {"sampling": ROOT / "docs" / "training.md"}
"""Benchmarks whose tables are on another page than PAGE."""
IMAGES = ROOT / "docs" / "images"
_BEGIN, _END = "<!-- written by `python -m benchmarks --write-docs` -->", "<!-- end of what is written -->"


class Results:
    """Hold the last results of each benchmark. A new run replaces only its own."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.found: dict[str, dict[str, Any]] = json.loads(file.read_text()) if file.exists() else {}

    def add(self, name: str, result: dict[str, Any]) -> None:
        """Store the results of one benchmark."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.found[name] = {"at": now, "machine": _machine(), **result}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        part = self.file.with_suffix(".part")
        part.write_text(json.dumps(self.found, indent=1))
        part.replace(self.file)

    def show(self) -> None:
        """Print all tables."""
        console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
        for table in tables(self.found):
            rich = RichTable(*table.header, title=table.title, title_justify="left", caption=table.note or None)
            for row in table.rows:
                rich.add_row(*row)
            console.print(rich)
        console.print(f"all figures: {self.file}")

    def write_docs(self) -> None:
        """Rewrite each page of the docs that has results."""
        from benchmarks.plots import draw

        by_page: dict[Path, dict[str, dict[str, Any]]] = {}
        for name, result in self.found.items():
            by_page.setdefault(PAGES.get(name, PAGE), {})[name] = result
        for page, found in by_page.items():
            written = "\n\n".join([_sentence(found), *map(_markdown, tables(found)), *draw(found, IMAGES)])
            pattern = re.compile(re.escape(_BEGIN) + ".*" + re.escape(_END), re.DOTALL)
            page.write_text(pattern.sub(f"{_BEGIN}\n\n{written}\n\n{_END}".replace("\\", r"\\"), page.read_text()))


def _markdown(table: Table) -> str:
    lines = [f"### {table.title}", "", " | ".join(["", *table.header, ""]).strip()]
    lines.append("|" + "---|" * len(table.header))
    lines += [" | ".join(["", *row, ""]).strip() for row in table.rows]
    return "\n".join([*lines, "", table.note] if table.note else lines)


def _sentence(found: dict[str, dict[str, Any]]) -> str:
    machines = {tuple(one["machine"].items()) for one in found.values()}
    days = sorted({one["at"][:10] for one in found.values()})
    text = "; ".join(", ".join(f"{name} {value}" for name, value in machine) for machine in sorted(machines, key=str))
    return f"Measured on {' and '.join(days)}: {text}."


def _machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "memory": f"{psutil.virtual_memory().total / 1e9:.0f} GB",
        "system": platform.system(),
        "Python": platform.python_version(),
        **{name: version(name) for name in ("confluent-kafka", "scikit-learn", "apache-airflow")},
    }
