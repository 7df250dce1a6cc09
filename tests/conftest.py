"""What all tests share. They see nothing of the developer's environment; the stack starts when a test asks for it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FOREIGN = ("AIRFLOW", "AWS_", "EMAIL_RECIPIENT", "FRAUD_", "KAFKA_", "LOGGER_SQL_URI", "MLFLOW_")
OURS = ("FRAUD_TEST_STACK", "FRAUD_FAULT_STACK", "FRAUD_TEST_SECURE_STACK")

for name in [name for name in os.environ if name.startswith(FOREIGN) and name not in OURS]:
    del os.environ[name]
os.environ |= {
    # Before the first import of Airflow, which would write a configuration into the developer's home.
    "AIRFLOW_HOME": str(ROOT / ".pytest_cache" / "airflow"),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "FRAUD_STACK_ENV_FILE": str(ROOT / "tests" / "support" / "stack.env"),
}


from dev.stack import Stack, postgres  # noqa: E402
from include.ledger.connection import LedgerConnection  # noqa: E402
from include.settings import Settings  # noqa: E402
from include.storage.staging import Storage  # noqa: E402
from tests.support import kafka_log  # noqa: E402
from tests.support.breakpoint import install_breakpoints  # noqa: E402
from tests.support.leaks import require_no_leaks  # noqa: E402
from tests.support.live_stack import LiveStack  # noqa: E402
from tests.support.mail import Inbox  # noqa: E402
from tests.support.scoring import Scoring  # noqa: E402

# Fixtures that start real services.
STACKS = {"services", "secure", "small_stack", "valkey", "observed", "mlflow_2_server"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need services, and group those that share a stack, for several processes.

    The tests of a folder share a stack. The two groups with Airflow take longest, so they come first.
    """
    groups: dict[pytest.Item, str] = {}
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if fixtures & STACKS:
            item.add_marker(pytest.mark.stack)
        groups[item] = "secure" if "secure" in fixtures else item.path.parent.name
        item.add_marker(pytest.mark.xdist_group(groups[item]))
    ranks = {"system": 0, "secure": 1}
    items.sort(key=lambda item: ranks.get(groups[item], len(ranks)))


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveStack]:
    """Start the stack without Airflow, once a session, for tests that need Kafka, MLflow, S3, a database or mail.

    FRAUD_TEST_STACK=<home> takes a stack that runs already instead.
    """
    running = os.environ.get("FRAUD_TEST_STACK")
    own = Stack(running or tmp_path_factory.mktemp("stack"))
    install_breakpoints(own)
    if not running:
        own.up(leave=False, without_airflow=True)
    try:
        live = LiveStack(own)
        yield live
        live.close()
        if not running:
            require_no_leaks(live)
    finally:
        if not running:
            own.down()


@pytest.fixture
def service_environment(services: LiveStack, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment in which MLflow, boto3 and Airflow's connections find the stack, set for this test."""
    wanted = {
        name: value
        for name, value in services.env.items()
        if name.startswith(("AWS_", "MLFLOW_", "KAFKA_", "AIRFLOW_CONN_"))
    }
    for name, value in wanted.items():
        monkeypatch.setenv(name, value)
    return wanted


@pytest.fixture
def topics(services: LiveStack) -> Iterator[Callable[..., str]]:
    """Makes topics with a name of their own, and deletes them when the test ends."""
    made: list[str] = []

    def create(partitions: int = 1, prefix: str = "test", **configuration: str) -> str:
        made.append(kafka_log.make_topic(services.bootstrap_servers, partitions, prefix, configuration=configuration))
        return made[-1]

    yield create
    kafka_log.delete_topics(services.bootstrap_servers, made)


@pytest.fixture
def ledger(services: LiveStack) -> Iterator[LedgerConnection]:
    """A ledger of the test's own, empty."""
    with services.own_ledger() as address:
        yield address


@pytest.fixture
def empty_database(services: LiveStack) -> Iterator[LedgerConnection]:
    """Create a database without tables for a ledger, and drop it when the test ends."""
    name = f"test_{uuid.uuid4().hex[:8]}"
    with services.database("postgres", postgres.LEDGER) as server:
        server.autocommit = True
        server.cursor().execute(f"CREATE DATABASE {name} OWNER {postgres.LEDGER}")
        yield replace(services.ledger, database=name)
        server.cursor().execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def inbox(services: LiveStack) -> Inbox:
    """The mail that comes in during this test."""
    return Inbox(services.maildir)


@pytest.fixture
def scoring(services: LiveStack, topics: Callable[..., str], tmp_path: Path) -> Callable[..., Scoring]:
    """Makes topics, a group and a staging folder of the test's own."""

    def make(partitions: int = 1, *, outputs: int = 1, **settings: Any) -> Scoring:
        source = topics(partitions, prefix="payments")
        own = {
            "input_topic": source,
            "output_topic": topics(outputs, prefix="scored"),
            "dead_letter_topic": topics(1, prefix="dead", **{"max.message.bytes": "2097152"}),
            "output_dead_letter_topic": topics(1, prefix="refused", **{"max.message.bytes": "2097152"}),
            "group": f"group of {source}",
            "ledger_group": f"ledger of {source}",
            "staging_url": str(tmp_path / "staging"),
        }
        return Scoring({"bootstrap.servers": services.bootstrap_servers}, Settings(**own).override(**settings))

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Storage:
    return Storage.open(str(tmp_path / "staging"))


@pytest.fixture
def bucket(service_environment: dict[str, str]) -> Storage:
    return Storage.open(f"s3://staging/{uuid.uuid4().hex[:12]}")


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.stack)])
def storage(request: pytest.FixtureRequest) -> Storage:
    """Both kinds, with nothing in them."""
    made: Storage = request.getfixturevalue(request.param)
    return made
