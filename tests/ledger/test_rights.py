"""The least rights on the ledger that docs/security.md gives: enough for all that is done there, and none too many."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from uuid import uuid4

import psycopg2
import pytest

from dev.stack import postgres
from include.batch.outbox import note_what_is_committed
from include.check.check_result import run
from include.check.ledger_check import _DONE as TABLES
from include.check.ledger_check import check_ledger
from include.errors import LedgerAccessError, LedgerGapError
from include.ledger.connection import LedgerConnection
from include.ledger.payment_trace import trace
from include.ledger.recorded_batches import record_batches
from include.ledger.recorded_offsets import LedgerOffsets
from include.ledger.recorder import record
from include.ledger.schema import migrate
from include.reviews.confirmed_export import export
from include.reviews.unreviewed import unreviewed
from include.reviews.verdict_writer import VerdictWriter
from include.verify.ledger_comparison import LedgerComparison
from include.verify.verification import verify
from tests.ledger.test_recorded_batches import leave
from tests.ledger.test_recorded_batches import record as batch_record
from tests.support import kafka_log
from tests.support.ledger import query
from tests.support.live_stack import LiveStack
from tests.support.pages import block
from tests.support.payments import payment
from tests.support.scoring import Scoring


@dataclass(frozen=True)
class Roles:
    """The page's two roles, by names of the test's own, and their database."""

    owner: LedgerConnection
    worker: LedgerConnection
    grants: list[tuple[str, str]]
    """Rights, and the tables that they are on."""

    def give(self, verb: str, rights: str, place: str) -> None:
        query(self.owner, f"{verb} {rights} ON {place} {'TO' if verb == 'GRANT' else 'FROM'} {self.worker.user}")


@pytest.fixture
def roles(services: LiveStack) -> Iterator[Roles]:
    """Run as the page has it; `ledger` is role and database there, and elsewhere the schema."""
    mark = uuid4().hex[:8]
    owner = replace(services.ledger, database=f"of_{mark}", user=f"owner_{mark}", password="of ledger")
    worker = replace(owner, user=f"worker_{mark}", password="of ledger_worker")
    made = re.sub(r":'(\w+)_password'", r"'of \1'", block("security.md", "CREATE ROLE ledger"))
    made = re.sub(r"\b(ROLE|OWNER) ledger\b", rf"\1 {owner.user}", made)
    made = re.sub(r"\bDATABASE ledger\b", f"DATABASE {owner.database}", made)
    made = re.sub(r"\b(ROLE|TO) ledger_worker\b", rf"\1 {worker.user}", made)
    with services.database("postgres", postgres.LEDGER) as server:
        server.autocommit = True
        cursor = server.cursor()
        try:
            for statement in filter(str.strip, made.split(";")):
                cursor.execute(statement)
            migrate(owner)
            given = re.findall(r"GRANT (.+) ON (.+) TO ledger_worker;", block("security.md", "GRANT USAGE"))
            found = Roles(owner, worker, given)
            for rights, place in given:
                found.give("GRANT", rights, place)
            yield found
        finally:
            cursor.execute(f"DROP DATABASE IF EXISTS {owner.database} WITH (FORCE)")
            for role in (worker.user, owner.user):
                cursor.execute(f"DROP ROLE IF EXISTS {role}")


class Shelf:
    def put(self, key: str, data: bytes) -> None:
        """Nobody asks for it."""


@dataclass(frozen=True)
class Work:
    """All that the product does in the ledger, again and again."""

    here: Scoring
    owner: LedgerConnection
    trans_num: str

    @classmethod
    def of(cls, here: Scoring, owner: LedgerConnection) -> Work:
        made = payment(950.75)
        kafka_log.send(str(here.kafka["bootstrap.servers"]), here.settings.input_topic, [made.message])
        here.run()
        note_what_is_committed(here.cluster, here.settings, here.outbox)
        record(here.cluster, here.settings, owner)
        record_batches(here.storage, owner)
        return cls(here, owner, str(made.values["trans_num"]))

    def done_by(self, worker: LedgerConnection) -> None:
        """Raises LedgerAccessError where a right is missing."""
        cluster, settings = self.here.cluster, self.here.settings
        # A row that was altered, which recording mends and keeps; and a batch's record that comes once more.
        # Before, this topic was another one.
        query(self.owner, "UPDATE ledger.recorded_offsets SET (topic_id, next_offset) = ('an earlier one', 0)")
        query(self.owner, "DELETE FROM ledger.lost_offsets")
        query(self.owner, "UPDATE ledger.predictions SET amt = amt + 1")
        leave(self.here.storage, batch_record())
        with pytest.raises(LedgerGapError):
            record(cluster, settings, worker)
        record_batches(self.here.storage, worker)
        with VerdictWriter.opened(worker) as verdicts:
            for fraud in (True, False):
                verdicts.confirm(self.trans_num, fraud=fraud, reviewer="ann")
        assert export(worker, Shelf())
        assert trace(worker, self.trans_num, mask=True)
        with worker.opened("fraud confirm") as connection:
            unreviewed(connection, 5)
        with worker.opened("fraud reconcile") as connection:
            assert verify(cluster, settings, ledger=LedgerComparison(connection, str(worker), settings.group)).is_whole
        with LedgerOffsets.opened(cluster, worker, settings.output_topic) as offsets:
            assert offsets.rewind("earliest", []) == {0: 0}


def each(roles: Roles) -> Iterator[tuple[str, str]]:
    # What was replaced is read through the view of both.
    read = [name for name, (_, operations) in TABLES.items() if "SELECT" in operations]
    tables = [f"ledger.{name}" for name in (*read, "alembic_version")]
    for rights, place in roles.grants:
        for right in rights.split(", "):
            for one in tables if place.startswith("ALL TABLES") else place.split(", "):
                yield right, one
    yield "TEMPORARY", f"DATABASE {roles.owner.database}"


def test_the_rights_are_enough_and_none_is_too_many(roles: Roles, scoring: Callable[..., Scoring]) -> None:
    work = Work.of(scoring(), roles.owner)
    for _ in range(2):
        work.done_by(roles.worker)
    assert [one.ok for one in check_ledger(roles.worker)] == [True, True]
    needless, unnoticed = [], []
    for right, place in each(roles):
        roles.give("REVOKE", right, place)
        try:
            work.done_by(roles.worker)
        except LedgerAccessError:
            pass
        else:
            needless.append(f"{right} ON {place}")
        found = run([("tried", lambda: check_ledger(roles.worker))])
        if all(one.ok for one in found):
            unnoticed.append(f"{right} ON {place}")
        roles.give("GRANT", right, place)
    assert (needless, unnoticed) == ([], [])
    work.done_by(roles.worker)


@pytest.mark.parametrize(
    "forbidden",
    [
        "DELETE FROM ledger.predictions", "DELETE FROM ledger.batches", "DELETE FROM ledger.confirmations",
        "DELETE FROM ledger.replaced_predictions", "UPDATE ledger.replaced_predictions SET amt = 0",
        "UPDATE ledger.confirmation_changes SET fraud = false", "DELETE FROM ledger.confirmation_changes",
        "TRUNCATE ledger.predictions", "ALTER TABLE ledger.predictions DISABLE TRIGGER ALL",
        "DROP TABLE ledger.exports", "CREATE TABLE ledger.more ()", "CREATE ROLE more",
    ],
)  # fmt: skip
def test_and_not_enough_for_more(roles: Roles, forbidden: str) -> None:
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        query(roles.worker, forbidden)


def test_who_may_not_enter_is_told_so_for_good(roles: Roles, services: LiveStack) -> None:
    with services.database("postgres", postgres.LEDGER) as server:
        server.autocommit = True
        server.cursor().execute(f"REVOKE CONNECT ON DATABASE {roles.owner.database} FROM {roles.worker.user}")
    with pytest.raises(LedgerAccessError, match=r"permission denied for database .*: check login"):
        roles.worker.connect("fraud check")
