"""Bringing the database to the schema of this program.

alembic costs memory and time, so it is imported only when there is something to do.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, select, text

from dicomnode.errors import ConfigError
from dicomnode.storage.database import Database, scalar
from dicomnode.storage.schema import REVISIONS, version

ADVISORY_LOCK = 0x6469636F6D6E6F64
"""Key of the PostgreSQL advisory lock that one upgrading node holds ("dicomnod")."""

_MIGRATIONS = Path(__file__).parent / "migrations"


def is_current(database: Database) -> bool:
    """Whether nothing is to be done.

    Raises `ConfigError` when a newer program made this schema.
    """
    return database.read(_found) == REVISIONS[-1]


def upgrade(database: Database) -> None:
    """Apply the missing migrations in one transaction.

    Safe when several nodes start at once on PostgreSQL; on SQLite the caller holds the
    store's lock. Raises `ConfigError` when a newer program made this schema.
    """
    if is_current(database):
        return
    database.write(_upgrade)


def _upgrade(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL lock_timeout = '300s'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
    if _found(connection) == REVISIONS[-1]:
        return  # another node was faster
    from alembic import command  # noqa: PLC0415 - 15 MB that a running node need not hold
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, REVISIONS[-1])


def _found(connection: Connection) -> str | None:
    """The database's revision; None when it is empty."""
    if not inspect(connection).has_table(version.name):
        return None
    found = scalar(connection, select(version.c.version_num))
    if found is not None and found not in REVISIONS:
        raise ConfigError(
            [
                f"the database has schema revision {found!r}, this program knows up to "
                f"{REVISIONS[-1]!r}: a newer dicomnode made it; start that version again, or "
                "restore the backup that was taken before the upgrade"
            ]
        )
    return str(found) if found is not None else None
