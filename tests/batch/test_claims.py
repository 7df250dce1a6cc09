from __future__ import annotations

from collections.abc import Callable

from include.batch.claims import Claims
from include.batch.manifest import Manifest
from include.batch.outbox import Outbox
from include.storage.staging import Storage

URL = "http://airflow/dags/score_payments/runs/1"


def test_installations_with_the_same_address_have_separate_claims(folder: Storage, staged: Callable[..., Manifest]):
    """Only FRAUD_INSTALLATION tells these Airflows apart: base_url and group are the same."""
    one, other = (Claims(folder, "a/group", "topic", URL, name) for name in ("one", "other"))
    for number in range(3):
        one.save(staged(f"20260101T00000{number}-a", {0: 1}))
    outbox = Outbox(folder, "a/group", "topic")
    assert other.end_older(outbox, lambda partitions: set()) == []
    assert len(one.end_older(outbox, lambda partitions: set())) == 2


def test_folder_of_claims_without_an_installation_is_unchanged(folder: Storage):
    """Versions without FRAUD_INSTALLATION used this folder."""
    assert Claims(folder, "a/group", "topic", URL)._folder == "claims/a%2Fgroup/topic/5612a75c"
