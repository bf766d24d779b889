"""A consistent copy of the database as one SQLite file, and the files that it names."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import text

from dicomnode.errors import StorageUnavailable
from dicomnode.storage.backup.manifest import BackupDamaged
from dicomnode.storage.backup.tables import copy_rows
from dicomnode.storage.database import SQLITE_NAME, Database, open_database, scalar
from dicomnode.storage.upgrade import upgrade

REPORT_JSON_SUFFIX = ".json"
"""Beside a report's DICOM form lies its JSON form, which no row names."""

_NAMED = """
    SELECT path, digest, size FROM instances
    UNION ALL SELECT path, digest, size FROM conflicts
    UNION ALL SELECT path, NULL, NULL FROM documents WHERE path IS NOT NULL
    UNION ALL SELECT substr(path, 1, length(path) - 4) || :suffix, '', NULL FROM documents
        WHERE path LIKE '%.dcm' AND kind = 'sr'
    UNION SELECT json_extract(content, '$.display_path'), NULL, NULL FROM outcomes
        WHERE json_extract(content, '$.display_path') IS NOT NULL
    ORDER BY 1
"""


@dataclass(frozen=True, kw_only=True)
class Named:
    """A file that the database names."""

    path: str
    digest: str | None
    """Of the data set, of what was received."""
    size: int | None
    optional: bool


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the copy holds."""

    store_id: str
    starts: int
    schema_revision: str
    studies: int
    instances: int


def database_bytes(database: Database) -> int:
    """About how much room a copy needs."""
    question = (
        "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"
        if database.dialect == "sqlite"
        else "SELECT pg_database_size(current_database())"
    )
    return int(database.read(lambda connection: scalar(connection, text(question))))


def copy_database(database: Database, root: Path, folder: Path) -> Path:
    """Copy it into `folder`; the copy is one file, checked, without a write-ahead log.

    Nobody waits for it: SQLite's writers go on beside a reader of the write-ahead log, and
    PostgreSQL's beside a REPEATABLE READ transaction.
    """
    place = folder / SQLITE_NAME
    if database.dialect == "sqlite":
        try:
            with (
                closing(sqlite3.connect(root / SQLITE_NAME)) as source,
                closing(sqlite3.connect(place)) as copy,
            ):
                # in one step: in several, a node that goes on writing makes it begin again
                # and again
                source.backup(copy, pages=-1)
        except sqlite3.Error as error:
            raise StorageUnavailable(
                f"the database cannot be copied ({getattr(error, 'sqlite_errorname', 'unknown')})"
            ) from error
    else:
        made = open_database(folder, "")
        try:
            upgrade(made)
            copy_rows(database, made)
        finally:
            made.close()
    seal(place)
    return place


def seal(place: Path) -> None:
    """Fold the write-ahead log in and check the file. Raises `BackupDamaged`."""
    try:
        with closing(sqlite3.connect(place)) as copy:
            copy.execute("PRAGMA journal_mode = DELETE").close()
            found = [row[0] for row in copy.execute("PRAGMA quick_check(3)")]
    except sqlite3.DatabaseError as error:
        raise BackupDamaged(f"{place.name} is not a sound database: {error}") from error
    if found != ["ok"]:
        raise BackupDamaged(f"the database is damaged ({'; '.join(found)}); restore a backup")


def facts(place: Path) -> Facts:
    with closing(sqlite3.connect(place)) as copy:

        def one(question: str) -> str:
            row = copy.execute(question).fetchone()
            if row is None:
                raise BackupDamaged(f"{place.name} does not say which store it belongs to")
            return str(row[0])

        try:
            return Facts(
                store_id=one("SELECT value FROM meta WHERE name = 'store_id'"),
                starts=int(one("SELECT value FROM meta WHERE name = 'starts'")),
                schema_revision=one("SELECT version_num FROM alembic_version"),
                studies=int(one("SELECT count(*) FROM studies")),
                instances=int(one("SELECT count(*) FROM instances")),
            )
        except sqlite3.DatabaseError as error:
            raise BackupDamaged(f"{place.name} is not a store's database: {error}") from error


def named_files(place: Path) -> Iterator[Named]:
    """Each once, in the order of `SHA256SUMS`."""
    last = None
    with closing(sqlite3.connect(place)) as copy:
        for path, digest, size in copy.execute(_NAMED, {"suffix": REPORT_JSON_SUFFIX}):
            if path != last:
                yield Named(path=path, digest=digest or None, size=size, optional=digest == "")
            last = path
