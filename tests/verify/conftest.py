from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from include.settings import Settings
from tests.support.live_stack import LiveStack
from tests.support.scoring import Scoring


@pytest.fixture
def scoring(services: LiveStack, topics: Callable[..., str], tmp_path: Path) -> Callable[..., Scoring]:
    """Makes topics, a group and a staging folder of the test's own."""

    def make(partitions: int = 1, **settings: Any) -> Scoring:
        source = topics(partitions, prefix="payments")
        own = {
            "input_topic": source,
            "output_topic": topics(2, prefix="scored"),
            "dead_letter_topic": topics(1, prefix="dead", **{"max.message.bytes": "2097152"}),
            "group": f"group of {source}",
            "staging_url": str(tmp_path / "staging"),
        }
        return Scoring({"bootstrap.servers": services.bootstrap_servers}, Settings(**own | settings))

    return make
