"""Check the version of the ledger's tables before each use, and bring them up to date for `fraud ledger migrate`."""

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

# The newest version in migrations/versions. It is repeated here because Alembic takes long to import.
VERSION = "0003"
MIGRATIONS = Path(__file__).parent / "migrations"


def current_version(connection: Connection) -> str | None:
    """Return the version of the tables, None if there are none."""
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('ledger.alembic_version') IS NOT NULL")
        if cursor.fetchone() != (True,):
            return None
        cursor.execute("SELECT version_num FROM ledger.alembic_version")
        found = cursor.fetchone()
    return str(found[0]) if found else None


def require_version(connection: Connection) -> None:
    """Raise LedgerSchemaError if the tables are missing, or older or newer than this release requires."""
    version = current_version(connection)
    if version == VERSION:
        return
    tables = "no tables yet" if version is None else f"tables of version {version}"
    is_newer = version is not None and version > VERSION
    remedy = "upgrade this installation" if is_newer else "run `fraud ledger migrate`"
    raise LedgerSchemaError(f"the ledger has {tables}, and version {VERSION} is required: {remedy}")


@contextmanager
def open_ledger(ledger: LedgerConnection, name: str) -> Iterator[Connection]:
    """Yield a session as `LedgerConnection.open` does. Raise LedgerSchemaError as `require_version` does."""
    with ledger.open(name) as connection:
        require_version(connection)
        yield connection


def migrate(ledger: LedgerConnection) -> tuple[str | None, str]:
    """Bring the tables up to date, and return the version before (None: no tables) and after.

    Wait while another process migrates. Raise LedgerSchemaError if the tables are newer than this release knows.
    """
    from alembic import command
    from sqlalchemy import create_engine
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import NullPool

    with ledger.open("fraud ledger migrate") as connection:
        before = current_version(connection)
        if before is not None and before > VERSION:
            require_version(connection)
        # SQLAlchemy gets the connection itself, because a URL with a password could end up in logs and errors.
        engine = create_engine("postgresql+psycopg2://", creator=lambda: connection, poolclass=NullPool)
        with engine.connect() as alembic_connection:
            config = _config()
            config.attributes["connection"] = alembic_connection
            try:
                command.upgrade(config, "head")
            except DBAPIError as error:
                # The error of psycopg2, of which LedgerConnection.open makes one line.
                raise error.orig or error from None
    return before, VERSION


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config
