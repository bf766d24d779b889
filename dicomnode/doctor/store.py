"""The store: its folder, its room, its file system, its database."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import text

from dicomnode.config import Settings, StorageSettings
from dicomnode.doctor.findings import Finding, fail, ok, warn
from dicomnode.doctor.mounts import Mount, mount_of
from dicomnode.errors import ConfigError, StorageUnavailable
from dicomnode.storage.database import SQLITE_NAME, Database, open_database, scalar
from dicomnode.storage.durable import sync_file, sync_folder
from dicomnode.storage.owner import IDENTITY_NAME, check_identity
from dicomnode.storage.upgrade import is_current

SLOW_SYNC_SECONDS = 0.25
CLOCK_DIFFERENCE_SECONDS = 2.0
_SCARCE_INODES = 100_000


def store(settings: Settings) -> Iterator[Finding]:
    """Folder, free space and file system."""
    storage = settings.storage
    place = _existing(storage.root)
    if place != storage.root:
        yield warn(
            "store.folder",
            f"{storage.root} does not exist; looked at {place} instead",
            expected="a folder, or a right path that the node makes at its first start",
            next_step="compare storage.root with the volume that is mounted",
        )
    elif not storage.root.is_dir():
        yield fail(
            "store.folder",
            f"{storage.root} is no folder",
            expected="a folder",
            next_step="set another storage.root",
        )
        return
    yield _durable(storage, place)
    yield _room(storage, place)
    mount = mount_of(place)
    if mount is not None:
        yield file_system(mount, sqlite=not storage.database_url.get_secret_value())


def database(settings: Settings) -> Iterator[Finding]:
    """Reachable, of this program's schema, of these files."""
    storage = settings.storage
    url = storage.database_url.get_secret_value()
    if not url and not (storage.root / SQLITE_NAME).exists():
        yield warn(
            "database",
            f"no {SQLITE_NAME} under {storage.root}",
            expected="the database of a store, or a first start that makes it",
            next_step="before the first start this is as it should be; else look at storage.root",
        )
        return
    opened = open_database(storage.root, url)
    try:
        yield from _asked(storage, opened)
    except (ConfigError, StorageUnavailable) as error:
        yield fail(
            "database",
            str(error),
            expected="a database that answers, with a schema that this program knows",
            next_step="see storage.database_url, and whether its server runs and is reached",
        )
    finally:
        opened.close()


def _asked(storage: StorageSettings, opened: Database) -> Iterator[Finding]:
    started = time.perf_counter()
    opened.read(lambda connection: scalar(connection, text("SELECT 1")))
    milliseconds = (time.perf_counter() - started) * 1000
    current = is_current(opened)
    if current:
        yield ok("database", f"{opened.dialect} answers in {milliseconds:.1f} ms, schema current")
    else:
        yield warn(
            "database",
            f"{opened.dialect} answers; its schema is empty or older than this program's",
            expected="the current schema",
            next_step="the node brings it up to date when it starts; back up before an upgrade",
        )
    if current and (storage.root / IDENTITY_NAME).is_file():
        check_identity(storage.root, opened)
        yield ok("database.identity", "files and database name the same store")
    if opened.dialect == "postgresql":
        yield from _postgresql(opened)


def _postgresql(opened: Database) -> Iterator[Finding]:
    def shown(name: str) -> str:
        question = text("SELECT current_setting(:name)")
        return str(opened.read(lambda c: c.execute(question, {"name": name}).scalar_one()))

    if shown("fsync") != "on":
        yield fail(
            "database.durability",
            "PostgreSQL runs with fsync = off",
            expected="fsync = on: an acknowledged image must survive a power cut",
            next_step="set fsync = on in postgresql.conf",
        )
    else:
        yield ok("database.durability", "PostgreSQL runs with fsync = on")
    now = opened.read(lambda c: c.execute(text("SELECT clock_timestamp()")).scalar_one())
    apart = abs((now - datetime.now(UTC)).total_seconds())
    if apart > CLOCK_DIFFERENCE_SECONDS:
        yield fail(
            "database.clock",
            f"this clock and that of PostgreSQL are {apart:.1f} s apart",
            expected=f"at most {CLOCK_DIFFERENCE_SECONDS:g} s: replicas lease jobs by the clock",
            next_step="synchronise the clocks of all nodes (chrony)",
        )


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that there is."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _durable(storage: StorageSettings, place: Path) -> Finding:
    probe = place / f".doctor-{uuid.uuid4().hex}"
    try:
        started = time.perf_counter()
        probe.write_bytes(b"probe")
        sync_file(probe)
        sync_folder(place)
        seconds = time.perf_counter() - started
    except OSError as error:
        return fail(
            "store.writable",
            f"cannot write to {place} as uid {os.getuid()}: {error.strerror}",
            expected="a folder that this user can write to",
            next_step=f"chown it to uid {os.getuid()}, or fsGroup in the pod",
        )
    finally:
        with contextlib.suppress(OSError):  # not written, or the finding says why it stays
            probe.unlink(missing_ok=True)
    found = f"{storage.root}: a file is durable in {seconds * 1000:.1f} ms"
    if seconds > SLOW_SYNC_SECONDS:
        return warn(
            "store.writable",
            found,
            expected=f"less than {SLOW_SYNC_SECONDS * 1000:g} ms",
            next_step="every image waits for this twice; use another disk, not an SD card",
        )
    return ok("store.writable", found)


def _room(storage: StorageSettings, place: Path) -> Finding:
    free, least = shutil.disk_usage(place).free, storage.minimum_free_bytes
    nodes = os.statvfs(place)
    found = f"{free / 1e9:.1f} GB free at {place}"
    if free < least:
        return fail(
            "store.free",
            found,
            expected=f"storage.minimum_free_bytes, {least / 1e9:.1f} GB",
            next_step="free space: below this, modalities get 0xA700",
        )
    if free < 2 * least:
        return warn(
            "store.free",
            found,
            expected=f"more than twice storage.minimum_free_bytes, {2 * least / 1e9:.1f} GB",
            next_step="free space before modalities get 0xA700",
        )
    if nodes.f_files and nodes.f_favail < _SCARCE_INODES:
        return warn(
            "store.free",
            f"{nodes.f_favail} inodes free at {place}",
            expected=f"{_SCARCE_INODES}: a study takes about five files",
            next_step="make the file system with more inodes, or move the store",
        )
    return ok("store.free", found)


def file_system(mount: Mount, *, sqlite: bool) -> Finding:
    """What a mount means for a store."""
    check, found = "store.file_system", f"{mount.kind} at {mount.point}"
    if "ro" in mount.options:
        return fail(
            check,
            f"{found} is mounted read-only",
            expected="read and write",
            next_step="look in the kernel's log: disks turn read-only when they fail",
        )
    if sqlite and mount.is_network:
        return fail(
            check,
            f"{found}, and the database is SQLite",
            expected="a local disk: SQLite's write-ahead log over a network DAMAGES the database",
            next_step="set storage.database_url to PostgreSQL, or storage.root to a local disk",
        )
    if mount.kind.startswith("nfs"):
        return _nfs(check, found, mount)
    if mount.kind in ("tmpfs", "ramfs", "overlay"):
        return warn(
            check,
            found,
            expected="a disk or volume that outlives this machine's or container's restart",
            next_step="mount a volume at storage.root",
        )
    return ok(check, found)


def _nfs(check: str, found: str, mount: Mount) -> Finding:
    options = mount.options
    if "soft" in options or "softerr" in options:
        return fail(
            check,
            f"{found} is mounted soft",
            expected="hard: a soft mount gives up writes that were already acknowledged",
            next_step="mount it with hard (mountOptions of the PersistentVolume)",
        )
    if "nolock" in options or options & {"local_lock=all", "local_lock=flock"}:
        return warn(
            check,
            f"{found} keeps locks to this machine",
            expected="locks that every node sees",
            next_step="mount it without nolock and local_lock",
        )
    return ok(check, f"{found}; see to it that the server exports it with sync")
