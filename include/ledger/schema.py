"""The version of the ledger's tables: brought up to date by `fraud ledger migrate`, and asked for before each use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from include.errors import LedgerSchemaError
from include.ledger.connection import LedgerConnection

if TYPE_CHECKING:
    from alembic.config import Config
    from psycopg2.extensions import connection as Connection  # noqa: N812

# The newest of migrations/versions, so that a run need not load Alembic to know it.
VERSION = "0003"
MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATE = "run `fraud ledger migrate`"


def current_version(connection: Connection) -> str | None:
    """None where there are no tables yet."""
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('ledger.alembic_version') IS NOT NULL")
        if cursor.fetchone() != (True,):
            return None
        cursor.execute("SELECT version_num FROM ledger.alembic_version")
        found = cursor.fetchone()
    return str(found[0]) if found else None


def require_version(connection: Connection) -> None:
    """Raises LedgerSchemaError where the tables are older or newer than this version of the product."""
    found = current_version(connection)
    if found == VERSION:
        return
    if found is None:
        raise LedgerSchemaError(f"the ledger has no tables yet, they are needed in version {VERSION}: {_MIGRATE}")
    if found < VERSION:
        raise LedgerSchemaError(f"the ledger's tables are of version {found}, {VERSION} is needed: {_MIGRATE}")
    raise LedgerSchemaError(
        f"the ledger's tables are of version {found}, made by a newer version of this product, which knows {VERSION}: "
        "bring this one up to date"
    )


@contextmanager
def open_ledger(address: LedgerConnection, name: str) -> Iterator[Connection]:
    """The connection to tables of the version that is needed; else as `require_version`, or as `Address.opened`."""
    with address.opened(name) as connection:
        require_version(connection)
        yield connection


def migrate(address: LedgerConnection) -> tuple[str | None, str]:
    """The version before and after. Waits where another migrates at the same time."""
    from alembic import command
    from sqlalchemy import create_engine
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import NullPool

    with address.opened("fraud ledger migrate") as connection:
        before = current_version(connection)
        if before is not None and before > VERSION:
            require_version(connection)
        # SQLAlchemy gets the connection itself: no address with a password in it is written down anywhere.
        engine = create_engine("postgresql+psycopg2://", creator=lambda: connection, poolclass=NullPool)
        with engine.connect() as migrating:
            config = _config()
            config.attributes["connection"] = migrating
            try:
                command.upgrade(config, "head")
            except DBAPIError as error:
                # What psycopg2 has raised: the address makes one line of it.
                raise error.orig or error from None
    return before, VERSION


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config
