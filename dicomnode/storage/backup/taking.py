"""`take_backup`: the database first, then the files that it names."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from dicomnode import __version__
from dicomnode.config import Settings
from dicomnode.storage.backup import snapshot
from dicomnode.storage.backup.copying import copy_file, file_digest, link_file, sync_folders
from dicomnode.storage.backup.guards import (
    alone,
    named_errors,
    require_apart,
    require_room,
    require_store,
)
from dicomnode.storage.backup.manifest import (
    CONFIG_NAME,
    FORMAT,
    MANIFEST_NAME,
    MODELS,
    PARTIAL,
    STORE,
    SUMS_NAME,
    BackupDamaged,
    BackupRefused,
    Manifest,
    PreviousSums,
    last_sound_list,
    sums_digest,
)
from dicomnode.storage.backup.models import model_files, version_folders
from dicomnode.storage.database import SQLITE_NAME
from dicomnode.storage.durable import sync_folder
from dicomnode.storage.store import open_storage

_MAKE_ROOM = "remove old backups there (each folder stands for itself), or use another disk"

Told = Callable[[str, int, int], None]
"""A stage, bytes done and bytes in all."""


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A finished backup."""

    folder: Path
    manifest: Manifest
    copied_files: int
    copied_bytes: int
    linked_files: int


@dataclass(frozen=True, kw_only=True)
class _Entry:
    path: str
    """In the backup."""
    source: Path
    data_set_digest: str | None = None
    size: int | None = None
    optional: bool = False


@dataclass(kw_only=True)
class _Work:
    """A backup that is being written."""

    partial: Path
    previous: Path | None
    told: Told
    sums: TextIO
    to_copy: int = 0
    done: int = 0
    files: int = 0
    bytes: int = 0
    copied_files: int = 0
    copied_bytes: int = 0
    missing: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)

    def counted(self, count: int) -> None:
        self.done += count
        self.told("copying", self.done, self.to_copy)


def take_backup(
    settings: Settings,
    target: Path,
    *,
    config: Path | None,
    models: bool = True,
    full: bool = False,
    told: Told = lambda *_: None,
) -> Taken:
    """Write a new backup below `target`, beside a running node or without one.

    Files that the last backup there holds unchanged get a second name (hard link) unless
    `full`. The backup has its name only when it is complete and durable. Raises
    `ConfigError`, `BackupRefused`, `BackupDamaged`, `StorageFull`, `StorageUnavailable`.
    """
    require_store(settings)
    root = settings.storage.root.resolve()
    with named_errors("making the folder of the backups"):
        target.mkdir(parents=True, exist_ok=True, mode=0o700)
    require_apart(root, target.resolve())
    with alone(target), named_errors("writing a backup"):
        for dead in target.glob(f"{PARTIAL}*"):  # whoever wrote it would hold the lock
            shutil.rmtree(dead)
        previous = None if full else last_sound_list(target)
        now = datetime.now(UTC)
        name = now.strftime("%Y%m%dT%H%M%S.%f")[:-3] + "Z"
        partial = target / f"{PARTIAL}{name}"
        partial.mkdir(mode=0o700)
        try:
            manifest, work = _written(
                settings, root, partial, previous, now=now, config=config, models=models, told=told
            )
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)  # the next run removes what stays
            raise
        partial.rename(target / name)
        sync_folder(target)
    return Taken(
        folder=target / name,
        manifest=manifest,
        copied_files=work.copied_files,
        copied_bytes=work.copied_bytes,
        linked_files=work.files - work.copied_files,
    )


def _written(
    settings: Settings,
    root: Path,
    partial: Path,
    previous: Path | None,
    *,
    now: datetime,
    config: Path | None,
    models: bool,
    told: Told,
) -> tuple[Manifest, _Work]:
    told("database", 0, 0)
    storage = open_storage(settings.storage)
    try:
        kind = storage.database.dialect
        require_room(
            partial.parent, snapshot.database_bytes(storage.database), next_step=_MAKE_ROOM
        )
        copy = snapshot.copy_database(storage.database, root, partial)
    finally:
        storage.close()
    facts = snapshot.facts(copy)
    base = settings.serving.model_base_path
    versions = version_folders(base) if models else ()
    with (partial / SUMS_NAME).open("x", encoding="utf-8", errors="surrogateescape") as sums:
        work = _Work(partial=partial, previous=previous, told=told, sums=sums)

        def entries() -> Iterator[_Entry]:
            for path in model_files(base, versions):
                yield _Entry(path=f"{MODELS}/{path}", source=base / path)
            if config is not None:
                yield _Entry(path=CONFIG_NAME, source=config)
            for named in snapshot.named_files(copy):
                yield _Entry(
                    path=f"{STORE}/{named.path}",
                    source=root / named.path,
                    data_set_digest=named.digest,
                    size=named.size,
                    optional=named.optional,
                )

        work.to_copy = sum(_bytes_to_copy(work, entry) for entry in entries())
        require_room(partial.parent, work.to_copy, next_step=_MAKE_ROOM)
        _note(work, SQLITE_NAME, file_digest(copy, counted=lambda _: None), copy.stat().st_size)
        work.copied_files += 1
        work.copied_bytes += copy.stat().st_size
        known = PreviousSums(previous)
        for entry in entries():
            _keep(work, entry, known)
        sums.flush()
        os.fsync(sums.fileno())
    manifest = Manifest(
        format=FORMAT,
        created_at=now.isoformat(timespec="milliseconds"),
        version=__version__,
        schema_revision=facts.schema_revision,
        store_id=facts.store_id,
        starts=facts.starts,
        database_kind=kind,
        files=work.files,
        bytes=work.bytes,
        studies=facts.studies,
        instances=facts.instances,
        models=versions,
        sums_sha256=sums_digest(partial),
        missing=tuple(work.missing),
        altered=tuple(work.altered),
    )
    told("syncing", 0, 0)
    # the manifest vouches for everything else, so everything else is durable before it
    sync_folders(partial)
    with (partial / MANIFEST_NAME).open("x", encoding="utf-8") as stream:
        stream.write(manifest.to_json())
        stream.flush()
        os.fsync(stream.fileno())
    sync_folder(partial)
    return manifest, work


def _keep(work: _Work, entry: _Entry, known: PreviousSums) -> None:
    place = work.partial / entry.path
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    unchanged = _unchanged(work, entry)
    digest = known.digest(entry.path)
    if unchanged is not None and digest is not None and link_file(unchanged, place):
        _note(work, entry.path, digest, place.stat().st_size)
        return
    try:
        digest, data_set_digest = copy_file(entry.source, place, counted=work.counted, mode=0o600)
    except FileNotFoundError as error:
        if entry.path.startswith(f"{MODELS}/"):
            raise BackupDamaged(
                f"model file {entry.path} went away meanwhile; was a version withdrawn? "
                "Take the backup again"
            ) from error
        if not entry.optional:
            work.missing.append(entry.path)
        return
    size = place.stat().st_size
    if entry.data_set_digest not in (None, data_set_digest) or entry.size not in (None, size):
        work.altered.append(entry.path)
    _note(work, entry.path, digest, size)
    work.copied_files += 1
    work.copied_bytes += size


def _bytes_to_copy(work: _Work, entry: _Entry) -> int:
    if _unchanged(work, entry) is not None:
        return 0
    try:
        return entry.source.stat().st_size
    except FileNotFoundError:
        return 0


def _unchanged(work: _Work, entry: _Entry) -> Path | None:
    """The file in the previous backup, when size and time say that it is the same one."""
    if work.previous is None:
        return None
    there = work.previous / entry.path
    try:
        before, now = there.stat(), entry.source.stat()
    except FileNotFoundError:
        return None
    same = (before.st_size, before.st_mtime_ns) == (now.st_size, now.st_mtime_ns)
    return there if same else None


def _note(work: _Work, path: str, digest: str, size: int) -> None:
    if "\n" in path or "\\" in path:
        raise BackupRefused(f"{path!r} cannot be listed in {SUMS_NAME}; rename that file")
    work.sums.write(f"{digest}  {path}\n")
    work.files += 1
    work.bytes += size
