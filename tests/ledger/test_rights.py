"""The rights on the ledger that docs/security.md grants: the product needs each of them and no other."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from uuid import uuid4

import psycopg2
import pytest

from dev.stack import postgres
from include.batch.outbox import record_committed_batches
from include.check.check_result import run_checks
from include.check.ledger_check import _OPERATIONS as TABLES
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
from tests.ledger.test_recorded_batches import record as batch_record
from tests.ledger.test_recorded_batches import write_record
from tests.support import kafka_log
from tests.support.ledger import query
from tests.support.live_stack import LiveStack
from tests.support.pages import block
from tests.support.payments import payment
from tests.support.scoring import Scoring


@dataclass(frozen=True)
class Roles:
    """The two roles of docs/security.md under other names, and their database."""

    owner: LedgerConnection
    worker: LedgerConnection
    grants: list[tuple[str, str]]
    """Rights, and the objects on which they are granted."""

    def change(self, verb: str, rights: str, target: str) -> None:
        """Execute GRANT or REVOKE."""
        query(self.owner, f"{verb} {rights} ON {target} {'TO' if verb == 'GRANT' else 'FROM'} {self.worker.user}")


@pytest.fixture
def roles(services: LiveStack) -> Iterator[Roles]:
    """Create the roles with the statements of the page, where `ledger` is a role, a database and a schema."""
    mark = uuid4().hex[:8]
    owner = replace(services.ledger, database=f"of_{mark}", user=f"owner_{mark}", password="of ledger")
    worker = replace(owner, user=f"worker_{mark}", password="of ledger_worker")
    statements = re.sub(r":'(\w+)_password'", r"'of \1'", block("security.md", "CREATE ROLE ledger"))
    statements = re.sub(r"\b(ROLE|OWNER) ledger\b", rf"\1 {owner.user}", statements)
    statements = re.sub(r"\bDATABASE ledger\b", f"DATABASE {owner.database}", statements)
    statements = re.sub(r"\b(ROLE|TO) ledger_worker\b", rf"\1 {worker.user}", statements)
    with services.database("postgres", postgres.LEDGER) as server:
        server.autocommit = True
        cursor = server.cursor()
        try:
            for statement in filter(str.strip, statements.split(";")):
                cursor.execute(statement)
            migrate(owner)
            grants = re.findall(r"GRANT (.+) ON (.+) TO ledger_worker;", block("security.md", "GRANT USAGE"))
            roles = Roles(owner, worker, grants)
            for rights, target in grants:
                roles.change("GRANT", rights, target)
            yield roles
        finally:
            cursor.execute(f"DROP DATABASE IF EXISTS {owner.database} WITH (FORCE)")
            for role in (worker.user, owner.user):
                cursor.execute(f"DROP ROLE IF EXISTS {role}")


class DiscardedExport:
    def put(self, key: str, data: bytes) -> None:
        """Keep nothing."""


@dataclass(frozen=True)
class Work:
    """All that the product does in the ledger, as often as needed."""

    pipeline: Scoring
    owner: LedgerConnection
    trans_num: str

    @classmethod
    def prepare(cls, pipeline: Scoring, owner: LedgerConnection) -> Work:
        made = payment(950.75)
        kafka_log.send(str(pipeline.kafka["bootstrap.servers"]), pipeline.settings.input_topic, [made.message])
        pipeline.run()
        record_committed_batches(pipeline.cluster, pipeline.settings, pipeline.outbox)
        record(pipeline.cluster, pipeline.settings, owner)
        record_batches(pipeline.storage, owner)
        return cls(pipeline, owner, str(made.values["trans_num"]))

    def do_as(self, worker: LedgerConnection) -> None:
        """Raise LedgerAccessError if a right is missing."""
        cluster, settings = self.pipeline.cluster, self.pipeline.settings
        # The topic was recreated, a row was altered, and a batch record arrives again: recording needs every right.
        query(self.owner, "UPDATE ledger.recorded_offsets SET (topic_id, next_offset) = ('an earlier one', 0)")
        query(self.owner, "DELETE FROM ledger.lost_offsets")
        query(self.owner, "UPDATE ledger.predictions SET amt = amt + 1")
        write_record(self.pipeline.storage, batch_record())
        with pytest.raises(LedgerGapError):
            record(cluster, settings, worker)
        record_batches(self.pipeline.storage, worker)
        with VerdictWriter.opened(worker) as verdicts:
            for fraud in (True, False):
                verdicts.confirm(self.trans_num, fraud=fraud, reviewer="ann")
        assert export(worker, DiscardedExport())
        assert trace(worker, self.trans_num, mask=True)
        with worker.open("fraud confirm") as connection:
            unreviewed(connection, 5)
        with worker.open("fraud reconcile") as connection:
            assert verify(cluster, settings, ledger=LedgerComparison(connection, str(worker), settings.group)).is_whole
        with LedgerOffsets.open(cluster, worker, settings.output_topic) as offsets:
            assert offsets.rewind("earliest", []) == {0: 0}


def single_rights(roles: Roles) -> Iterator[tuple[str, str]]:
    # replaced_predictions is only read through a view.
    read = [name for name, (_, operations) in TABLES.items() if "SELECT" in operations]
    tables = [f"ledger.{name}" for name in (*read, "alembic_version")]
    for rights, target in roles.grants:
        for right in rights.split(", "):
            for name in tables if target.startswith("ALL TABLES") else target.split(", "):
                yield right, name
    yield "TEMPORARY", f"DATABASE {roles.owner.database}"


def test_each_granted_right_is_needed_and_checked(roles: Roles, scoring: Callable[..., Scoring]) -> None:
    work = Work.prepare(scoring(), roles.owner)
    for _ in range(2):
        work.do_as(roles.worker)
    assert [result.ok for result in check_ledger(roles.worker)] == [True, True]
    needless, unnoticed = [], []
    for right, target in single_rights(roles):
        roles.change("REVOKE", right, target)
        try:
            work.do_as(roles.worker)
        except LedgerAccessError:
            pass
        else:
            needless.append(f"{right} ON {target}")
        results = run_checks([("tried", lambda: check_ledger(roles.worker))])
        if all(result.ok for result in results):
            unnoticed.append(f"{right} ON {target}")
        roles.change("GRANT", right, target)
    assert (needless, unnoticed) == ([], [])
    work.do_as(roles.worker)


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
def test_worker_has_no_further_right(roles: Roles, forbidden: str) -> None:
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        query(roles.worker, forbidden)


def test_missing_connect_right_is_an_access_error(roles: Roles, services: LiveStack) -> None:
    with services.database("postgres", postgres.LEDGER) as server:
        server.autocommit = True
        server.cursor().execute(f"REVOKE CONNECT ON DATABASE {roles.owner.database} FROM {roles.worker.user}")
    with pytest.raises(LedgerAccessError, match=r"permission denied for database .*: check login"):
        roles.worker.connect("fraud check")
