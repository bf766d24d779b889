"""`verify_backup` and `restore_backup`.

`store.json` is written last: until then a node refuses the root ("holds instances but no
store.json"), so a restore that broke off cannot be taken for a store.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, text, update

from dicomnode.config import Settings
from dicomnode.jobs import JobState
from dicomnode.storage.backup import snapshot
from dicomnode.storage.backup.copying import copy_file, file_digest, sync_folders
from dicomnode.storage.backup.guards import named_errors, require_apart, require_room
from dicomnode.storage.backup.manifest import (
    STORE,
    BackupDamaged,
    BackupRefused,
    Manifest,
    files_of,
    read_manifest,
    read_sums,
    some_of,
    sums_digest,
)
from dicomnode.storage.backup.models import missing_models, restore_models
from dicomnode.storage.backup.tables import copy_rows, is_empty
from dicomnode.storage.database import SQLITE_NAME, Database, open_database, scalar
from dicomnode.storage.durable import sync_folder
from dicomnode.storage.files import FOLDERS
from dicomnode.storage.owner import (
    IDENTITY_NAME,
    Identity,
    open_single_owner,
    write_identity,
)
from dicomnode.storage.queue import SqlQueue
from dicomnode.storage.schema import meta
from dicomnode.storage.upgrade import upgrade

Told = Callable[[str, int, int], None]

_DATABASE_FILES = tuple(SQLITE_NAME + ending for ending in ("", "-wal", "-shm"))
_MODE = 0o644
_WORKING = ".restoring"
_REPLACED = ".replaced-"


@dataclass(frozen=True, kw_only=True)
class Restored:
    """What is there now."""

    manifest: Manifest
    store_id: str
    """A new one: the original's files or database cannot be mixed with these."""
    jobs: Mapping[JobState, int]
    models: tuple[str, ...]
    """Versions that were not there before."""
    replaced: Path | None
    """Where the store is that was there."""


def verify_backup(backup: Path, *, told: Told = lambda *_: None) -> Manifest:
    """Read every file of a backup and hold it against the list. Raises `BackupDamaged`."""
    manifest = read_manifest(backup)
    if not (sums := backup / "SHA256SUMS").is_file() or sums_digest(backup) != manifest.sums_sha256:
        raise BackupDamaged(f"{sums} is not the list that the manifest vouches for")
    damaged = _damaged(
        ((path, backup / path, digest) for path, digest in read_sums(backup)),
        stage="verifying",
        total=manifest.bytes,
        told=told,
    )
    if damaged:
        raise BackupDamaged(
            f"{len(damaged)} of {manifest.files} files in {backup} are missing or altered: "
            f"{some_of(damaged)}; use another backup"
        )
    return manifest


def restore_backup(
    settings: Settings,
    backup: Path,
    *,
    models: bool = True,
    force_empty: bool = False,
    told: Told = lambda *_: None,
) -> Restored:
    """Make the store that the settings name from a backup, files and database.

    Nothing is changed before every digest of the backup was found right, and the store
    counts only after every digest of what was written was. A store that is there is refused;
    with `force_empty` its files are set aside and PostgreSQL's rows replaced. Raises
    `ConfigError`, `BackupRefused`, `BackupDamaged`, `StorageFull`, `StorageUnavailable`.
    """
    root = settings.storage.root
    url = settings.storage.database_url.get_secret_value()
    require_apart(root.resolve(), backup.resolve())
    manifest = verify_backup(backup, told=told)
    with named_errors("making the store's root"):
        root.mkdir(parents=True, exist_ok=True)
    lock = open_single_owner(root)
    target = open_database(root, url) if url else None
    try:
        if target is not None:
            _require_nobody_else(target)
        held = _held(root)
        occupied = bool(held) or (target is not None and not is_empty(target))
        if occupied and not force_empty:
            raise BackupRefused(
                f"there is a store at {root} already ({some_of(held) or 'the database has rows'})"
                ": set another storage.root and database, or say --force-empty to replace it"
            )
        base = settings.serving.model_base_path
        missing = missing_models(backup, base) if models else ()
        require_room(root, manifest.bytes, next_step="nothing was changed; make room")
        with named_errors("restoring"):
            replaced = _set_aside(root, held)
            store_id, jobs = _restored_store(root, backup, manifest, target, told)
            restore_models(backup, base, missing)
    finally:
        if target is not None:
            target.close()
        lock.release()
    return Restored(
        manifest=manifest, store_id=store_id, jobs=jobs, models=missing, replaced=replaced
    )


def _restored_store(
    root: Path, backup: Path, manifest: Manifest, target: Database | None, told: Told
) -> tuple[str, Mapping[JobState, int]]:
    for name in FOLDERS:
        (root / name).mkdir(exist_ok=True)
    done = 0

    def counted(count: int) -> None:
        nonlocal done
        done += count
        told("copying", done, manifest.bytes)

    for path, digest in files_of(backup, STORE):
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if copy_file(backup / STORE / path, place, counted=counted, mode=_MODE)[0] != digest:
            raise BackupDamaged(f"{path} changed while it was read; check the backup's disk")
    working = root / _WORKING
    if working.exists():
        shutil.rmtree(working)
    working.mkdir(mode=0o700)
    copy_file(backup / SQLITE_NAME, working / SQLITE_NAME, counted=counted, mode=_MODE)
    store_id, jobs = _renewed(working, target)
    if target is None:
        snapshot.seal(working / SQLITE_NAME)
        (working / SQLITE_NAME).replace(root / SQLITE_NAME)
    shutil.rmtree(working)
    sync_folders(root)
    damaged = _damaged(
        ((path, root / path, digest) for path, digest in files_of(backup, STORE)),
        stage="verifying what was written",
        total=manifest.bytes,
        told=told,
    )
    if damaged:
        raise BackupDamaged(f"{some_of(damaged)} cannot be read back as written; check this disk")
    write_identity(root, Identity(store_id=store_id, starts=manifest.starts))
    return store_id, jobs


def _renewed(working: Path, target: Database | None) -> tuple[str, Mapping[JobState, int]]:
    """The database's copy as that of a store of its own, in today's schema, with no job in
    anybody's hand; its rows also in `target`."""
    store_id = uuid.uuid4().hex

    def name_it(connection: Connection) -> None:
        connection.execute(update(meta).where(meta.c.name == "store_id").values(value=store_id))

    copy = open_database(working, "")
    try:
        upgrade(copy)
        copy.write(name_it)
        queue = SqlQueue(copy)
        queue.release_leases(now=datetime.now(UTC))
        if target is not None:
            upgrade(target)
            copy_rows(copy, target)
        return store_id, queue.counts()
    finally:
        copy.close()


def _damaged(
    files: Iterator[tuple[str, Path, str]], *, stage: str, total: int, told: Told
) -> list[str]:
    damaged, done = [], 0

    def counted(count: int) -> None:
        nonlocal done
        done += count
        told(stage, done, total)

    for name, path, digest in files:
        try:
            if file_digest(path, counted=counted) != digest:
                damaged.append(name)
        except OSError:  # missing, or a sector that cannot be read: named like an altered one
            damaged.append(name)
    return damaged


def _held(root: Path) -> list[str]:
    """What of a store is under `root`; an empty folder is nothing."""
    names = [name for name in (*_DATABASE_FILES, IDENTITY_NAME) if (root / name).exists()]
    folders = [n for n in FOLDERS if (root / n).is_dir() and any((root / n).iterdir())]
    return names + folders


def _set_aside(root: Path, held: list[str]) -> Path | None:
    """Move a store out of the way, within its file system. It stays there: it may hold films
    that the backup lacks."""
    if not held:
        return None
    aside = root / f"{_REPLACED}{datetime.now(UTC).strftime('%Y%m%dT%H%M%S.%fZ')}"
    aside.mkdir(mode=0o700)
    # its identity first: from then on no node takes what remains for a store
    for name in sorted(held, key=lambda name: name != IDENTITY_NAME):
        (root / name).rename(aside / name)
    sync_folder(root)
    return aside


def _require_nobody_else(target: Database) -> None:
    question = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    others = int(target.read(lambda connection: scalar(connection, question)))
    if others:
        raise BackupRefused(
            f"{others} other connections to the database are open: stop every node that uses it"
        )
