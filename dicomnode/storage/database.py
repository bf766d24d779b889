"""One database, SQLite or PostgreSQL, behind two verbs: `read` and `write`.

`write` returns after a durable commit. Errors of the driver are mapped here, without
the values that were bound: those may be a patient's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Executable, Table, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    IntegrityError,
    InternalError,
    OperationalError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from dicomnode.errors import ConfigError, DicomnodeError, StorageFull, StorageUnavailable
from dicomnode.storage.groupcommit import GroupCommit
from dicomnode.storage.prepared import run_in_driver

T = TypeVar("T")

SQLITE_NAME = "dicomnode.sqlite3"
BUSY_MILLISECONDS = 10_000
"""How long a writer waits for another process, for example `dicomnode queue retry`."""

CHECKPOINT_PAGES = 8_000
"""32 MB of write-ahead log between checkpoints: while images arrive, pages that change
again and again are written back once instead of every fifty images."""

_TRIES = 5
_RETRIABLE = ("40001", "40P01")  # serialization failure, deadlock detected
_DISK_FULL = "53100"
_SESSION = (
    "-c timezone=UTC -c synchronous_commit=on -c statement_timeout=30s -c lock_timeout=10s"
    " -c idle_in_transaction_session_timeout=60s"
)


class Database:
    """An engine and the discipline of using it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.dialect = engine.dialect.name
        self._group = None
        if self.dialect == "sqlite":
            self._group = GroupCommit(engine.execution_options(dicomnode_write=True))

    def read(self, work: Callable[[Connection], T]) -> T:
        """Run `work` on a consistent view (SQLite) or read committed (PostgreSQL).

        Raises `StorageUnavailable`.
        """
        return self._mapped(lambda: self._in_transaction(work))

    def write(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction of its own; durable when this returns.

        `work` may run more than once (deadlock, lost batch) and must only touch its
        connection. Raises `StorageFull`, `StorageUnavailable`, `StatementRefused`, or what `work`
        itself raises.
        """
        if self._group is not None:
            group = self._group
            return self._mapped(lambda: group(work))
        return self._mapped(lambda: self._with_retries(work))

    def insert(self, table: Table) -> Any:
        """See `dialect_insert`."""
        return dialect_insert(self.dialect, table)

    def locked(self, statement: Any) -> Any:
        """`statement` with its rows locked (SQLite has one writer anyway)."""
        return statement if self.dialect == "sqlite" else statement.with_for_update()

    def close(self) -> None:
        if self._group is not None:
            self._group.close()
        self.engine.dispose()

    def _in_transaction(self, work: Callable[[Connection], T]) -> T:
        with self.engine.begin() as connection:
            return work(connection)

    def _with_retries(self, work: Callable[[Connection], T]) -> T:
        for _ in range(_TRIES - 1):
            try:
                return self._in_transaction(work)
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) not in _RETRIABLE:
                    raise
        return self._in_transaction(work)

    def _mapped(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except DicomnodeError:
            raise
        except PoolTimeout as error:
            raise StorageUnavailable(
                "no database connection became free; too many threads wait for a slow database"
            ) from error
        except DBAPIError as error:
            # without its cause: PostgreSQL repeats the row in it, which may be a patient's
            raise _map(error) from None


class StatementRefused(DicomnodeError):
    """The database refuses a statement: a fault of this program, or a row that another
    node has just made (`IntegrityRefused`)."""

    code = "statement_refused"


class IntegrityRefused(StatementRefused):
    """A constraint does not hold: unique, foreign key, not null."""


def _map(error: DBAPIError) -> DicomnodeError:
    """What a driver's error means, in words that hold none of the values."""
    sqlstate = getattr(error.orig, "sqlstate", None)
    code = getattr(error.orig, "sqlite_errorname", None)
    if code == "SQLITE_FULL" or sqlstate == _DISK_FULL:
        return StorageFull("the database's disk is full; free space, the sender will retry")
    if isinstance(error, OperationalError | InternalError) or error.connection_invalidated:
        found = code or sqlstate or type(error.orig).__name__
        return StorageUnavailable(f"the database does not answer as it should ({found})")
    kind = IntegrityRefused if isinstance(error, IntegrityError) else StatementRefused
    found = code or sqlstate or type(error.orig).__name__
    return kind(f"the database refuses a statement ({found}): {error.statement}; report this")


def dialect_insert(dialect: str, table: Table) -> Any:
    """INSERT that knows ON CONFLICT; both dialects speak it alike."""
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


def scalar(connection: Connection, statement: Executable) -> Any:
    """The first column of the first row, or None."""
    return connection.execute(statement).scalar()


def open_database(root: Path, url: str) -> Database:
    """The SQLite file under `root` when `url` is empty, else PostgreSQL.

    Raises `ConfigError`.
    """
    return Database(_postgresql(url) if url else _sqlite(root / SQLITE_NAME))


def _sqlite(path: Path) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        hide_parameters=True,
        pool_size=4,
        max_overflow=28,
        connect_args={"check_same_thread": False, "timeout": BUSY_MILLISECONDS / 1000},
    )
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None  # `_begin_sqlite` begins, not the driver
    for pragma in (
        f"busy_timeout = {BUSY_MILLISECONDS}",
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    # a writer takes the lock at once: upgrading a read lock later fails without waiting
    writes = connection.get_execution_options().get("dicomnode_write", False)
    run_in_driver(connection, "BEGIN IMMEDIATE" if writes else "BEGIN")


def _postgresql(url: str) -> Engine:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise ConfigError(
            ["storage.database_url is not a URL; expected postgresql+psycopg://user@host/name"]
        ) from error
    if parsed.drivername not in ("postgresql", "postgresql+psycopg"):
        raise ConfigError(
            [
                f"storage.database_url must begin with postgresql+psycopg://, got "
                f"{parsed.drivername}://; leave it empty for SQLite under storage.root"
            ]
        )
    try:
        return create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            hide_parameters=True,
            pool_size=5,
            max_overflow=35,
            pool_pre_ping=True,
            connect_args={"connect_timeout": 10, "options": _SESSION},
        )
    except ModuleNotFoundError as error:
        raise ConfigError(
            ["storage.database_url needs psycopg; install dicomnode[postgres]"]
        ) from error
