from __future__ import annotations

from collections.abc import Callable

from include.batch.claims import Claims
from include.batch.manifest import Manifest
from include.batch.outbox import Outbox
from include.storage.staging import Storage

URL = "http://airflow/dags/score_payments/runs/1"


def test_installations_of_one_address_keep_their_claims_apart(folder: Storage, staged: Callable[..., Manifest]):
    """Two Airflows with the same base_url and group, told apart by FRAUD_INSTALLATION only."""
    one, other = (Claims(folder, "a/group", "topic", URL, name) for name in ("one", "other"))
    for number in range(3):
        one.save(staged(f"20260101T00000{number}-a", {0: 1}))
    outbox = Outbox(folder, "a/group", "topic")
    assert other.end_older(outbox, lambda partitions: set()) == []
    assert len(one.end_older(outbox, lambda partitions: set())) == 2


def test_without_an_installation_claims_of_earlier_runs_are_found(folder: Storage):
    """As the folder was named before FRAUD_INSTALLATION counted."""
    assert Claims(folder, "a/group", "topic", URL)._folder == "claims/a%2Fgroup/topic/5612a75c"
