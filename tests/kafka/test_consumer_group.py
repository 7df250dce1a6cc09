from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import pytest

from include.errors import BrokerUnresponsiveError, ClusterError, HangingTransactionError
from include.kafka.cluster import Topic
from include.kafka.committed_offsets import CommitNote, CommittedOffset
from include.kafka.consumer_group import ConsumerGroup

BEFORE = CommittedOffset(1, CommitNote("earlier", "t", "now"))
NOTE = CommitNote("b", "t", "now")
UNRESPONSIVE, HANGING = BrokerUnresponsiveError("no answer"), HangingTransactionError("open")

Response = CommittedOffset | ClusterError


class ScriptedGroup(ConsumerGroup):
    """A group whose requests have given responses, one a second; the last one repeats."""

    def committed_offsets(self, partitions: Iterable[int] | None = None) -> dict[int, CommittedOffset]:
        responses: Any = self.consumer
        response: Response = responses.pop(0) if len(responses) > 1 else responses[0]
        time.sleep(1)
        if isinstance(response, ClusterError):
            raise response
        return {0: response}


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the clock of `await_commit` by one that only sleeping advances."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", sleep)


def await_commit(*responses: Response) -> CommittedOffset:
    scripted: Any = list(responses)
    cluster: Any = None
    return ScriptedGroup(cluster, "group", Topic("topic", "t", (0,)), scripted).await_commit(0, 2, NOTE, BEFORE)


@pytest.mark.parametrize("earlier", [BEFORE, UNRESPONSIVE, HANGING])
def test_commit_is_awaited_until_it_is_visible(earlier: Response) -> None:
    assert await_commit(earlier, CommittedOffset(2, NOTE)) == CommittedOffset(2, NOTE)


@pytest.mark.parametrize(
    ("responses", "kind", "text"),
    [
        ([BEFORE, UNRESPONSIVE], BrokerUnresponsiveError, "no answer"),
        ([UNRESPONSIVE, BEFORE], ClusterError, "after 30 s the committed offset is still 1: check the brokers"),
        ([UNRESPONSIVE, BEFORE, HANGING], ClusterError, "a transaction is open on it"),
    ],
)
def test_error_for_an_invisible_commit_reports_the_last_response(
    responses: list[Response], kind: type[ClusterError], text: str
) -> None:
    with pytest.raises(ClusterError, match=text) as error:
        await_commit(*responses)
    assert type(error.value) is kind
