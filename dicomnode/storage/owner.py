"""Who may use a store: one node per SQLite file, and one database per root.

`node.lock` is held (flock) by the node that owns a SQLite store. `store.json` says which
database the files under a root belong to: without it, a lost or exchanged database would
make every image under the root look like an orphan.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from sqlalchemy import Connection, select, update

from dicomnode.errors import ConfigError
from dicomnode.storage.database import Database, scalar
from dicomnode.storage.durable import mapped_errors, sync_folder
from dicomnode.storage.schema import meta

LOCK_NAME = "node.lock"
IDENTITY_NAME = "store.json"


class OwnerLock:
    """Held until `release`, or until the process ends, however it ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def open_single_owner(root: Path) -> OwnerLock:
    """Take `root/node.lock`. Raises `ConfigError` when another process holds it."""
    path = root / LOCK_NAME
    with mapped_errors(f"opening {path}"):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise ConfigError([f"cannot lock {path}: {error.strerror}"]) from error
        raise ConfigError(
            [
                f"{root} is in use by another node ({LOCK_NAME} is held); stop that node, use "
                "another storage.root, or set storage.database_url to a PostgreSQL database, "
                "which several nodes can share"
            ]
        ) from error
    return OwnerLock(descriptor)


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What `store.json` says."""

    store_id: str
    starts: int = 0
    """How often a node started on it; the database counts along."""
    clean: bool = False
    """Whether the last node stopped in an orderly way."""
    swept_at: float = 0.0
    """POSIX time before which no folder needs to be looked at for orphans."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """A start of a node on a store."""

    identity: Identity
    """As it was before."""
    database_is_older: bool
    """The database was restored from a backup that does not know the newest files."""


def check_identity(root: Path, database: Database) -> Identity:
    """The store that both the root and the database name; made when both are new.

    Raises `ConfigError` when they name different ones.
    """
    in_database = database.read(lambda connection: _value(connection, "store_id"))
    on_disk = _read(root)
    if in_database is None and on_disk is None and _holds_instances(root):
        raise _mismatch(root, "holds instances, and the database is new")
    if in_database is None and on_disk is not None and _holds_instances(root):
        raise _mismatch(root, "belongs to another database, and the configured one is new")
    if on_disk is not None and in_database not in (None, on_disk.store_id):
        raise _mismatch(root, "belongs to another database")
    if in_database is not None and on_disk is None and _holds_instances(root):
        raise _mismatch(root, f"holds instances but no {IDENTITY_NAME}")
    store_id = in_database or database.write(_new_store_id)
    if on_disk is None or on_disk.store_id != store_id:
        on_disk = Identity(store_id=store_id)
        write_identity(root, on_disk)
    return on_disk


def begin(root: Path, database: Database) -> Start:
    """Count a start, first in the database, and mark the store as not cleanly stopped."""
    identity = check_identity(root, database)

    def count(connection: Connection) -> tuple[int, bool]:
        row = select(meta.c.value).where(meta.c.name == "starts")
        known = int(scalar(connection, database.locked(row)) or 0)
        starts = max(known, identity.starts) + 1
        connection.execute(update(meta).where(meta.c.name == "starts").values(value=str(starts)))
        return starts, known < identity.starts

    starts, database_is_older = database.write(count)
    write_identity(root, replace(identity, starts=starts, clean=False))
    return Start(identity=identity, database_is_older=database_is_older)


def mark(root: Path, *, clean: bool | None = None, swept_at: float | None = None) -> None:
    """Note an orderly stop or a finished sweep."""
    identity = _read(root)
    if identity is None:
        return
    if clean is not None:
        identity = replace(identity, clean=clean)
    if swept_at is not None:
        identity = replace(identity, swept_at=swept_at)
    write_identity(root, identity)


def write_identity(root: Path, identity: Identity) -> None:
    """Replace `store.json` atomically and durably."""
    temporary = root / "incoming" / f"{uuid.uuid4().hex}.{IDENTITY_NAME}"
    with mapped_errors(f"writing {IDENTITY_NAME}"):
        with temporary.open("x", encoding="utf-8") as file:
            json.dump(asdict(identity), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(root / IDENTITY_NAME)
        sync_folder(root)


def _read(root: Path) -> Identity | None:
    path = root / IDENTITY_NAME
    with mapped_errors(f"reading {IDENTITY_NAME}"):
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
    try:
        return Identity(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise ConfigError([f"{path} is damaged; restore it from the backup"]) from error


def _new_store_id(connection: Connection) -> str:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("LOCK TABLE meta IN EXCLUSIVE MODE")
    found = _value(connection, "store_id")
    if found is not None:
        return found
    store_id = uuid.uuid4().hex
    connection.execute(meta.insert(), [{"name": "store_id", "value": store_id}])
    connection.execute(meta.insert(), [{"name": "starts", "value": "0"}])
    return store_id


def _value(connection: Connection, name: str) -> str | None:
    found = scalar(connection, select(meta.c.value).where(meta.c.name == name))
    return str(found) if found is not None else None


def _holds_instances(root: Path) -> bool:
    with contextlib.suppress(FileNotFoundError), os.scandir(root / "instances") as entries:
        return next(entries, None) is not None
    return False


def _mismatch(root: Path, found: str) -> ConfigError:
    return ConfigError(
        [
            f"storage.root {root} {found}: its images would be taken for orphans and removed. "
            "Restore the database that belongs to it, or set another storage.root"
        ]
    )
