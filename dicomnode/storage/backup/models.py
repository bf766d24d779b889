"""The model versions of a backup: published ones and those that a rollback withdrew."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from dicomnode.storage.backup.copying import copy_file, file_digest, sync_folders
from dicomnode.storage.backup.manifest import (
    MODELS,
    BackupDamaged,
    BackupRefused,
    files_of,
    in_order,
)
from dicomnode.storage.durable import sync_folder

_WITHDRAWN = "withdrawn"


def version_folders(base: Path) -> tuple[str, ...]:
    """Relative folders, each complete: a version gets its number by one rename. What is
    being written is in hidden folders."""
    return tuple(
        sorted(
            str(folder.relative_to(base))
            for parent in (base, base / _WITHDRAWN)
            if parent.is_dir()
            for folder in parent.iterdir()
            if folder.name.isascii() and folder.name.isdigit() and folder.is_dir()
        )
    )


def model_files(base: Path, versions: Sequence[str]) -> Iterator[str]:
    """Relative paths in the order of the list."""
    found = [
        str((Path(folder) / name).relative_to(base))
        for version in versions
        for folder, _, names in os.walk(base / version)
        for name in names
    ]
    yield from sorted(found, key=in_order)


def missing_models(backup: Path, base: Path) -> tuple[str, ...]:
    """Versions of the backup that `base` lacks. One that differs is refused: two networks of
    one number would both be the one that a report names."""
    versions: dict[str, bool] = {}
    for path, digest in files_of(backup, MODELS):
        version = _version_of(path)
        there = base / version
        versions.setdefault(version, there.exists())
        if not versions[version]:
            continue
        file = base / path
        if not file.is_file() or file_digest(file, counted=lambda _: None) != digest:
            raise BackupRefused(
                f"{there} is not the version of that number in the backup; set another "
                "serving.model_base_path, or say --no-models"
            )
    return tuple(version for version, there in versions.items() if not there)


def _version_of(path: str) -> str:
    first, second, *_ = path.split("/")
    return f"{first}/{second}" if first == _WITHDRAWN else first


def restore_models(backup: Path, base: Path, versions: tuple[str, ...]) -> None:
    """Each appears under its number as a whole, for a model server that watches the folder."""
    staging = base / f".restore-{uuid.uuid4().hex[:8]}"
    for version in versions:
        for path, digest in files_of(backup, MODELS):
            if _version_of(path) != version:
                continue
            place = staging / path
            place.parent.mkdir(parents=True, exist_ok=True)
            copied, _ = copy_file(backup / MODELS / path, place, counted=lambda _: None, mode=0o644)
            if copied != digest or file_digest(place, counted=lambda _: None) != digest:
                raise BackupDamaged(f"model file {path} cannot be read back as written")
        sync_folders(staging)
        (base / version).parent.mkdir(parents=True, exist_ok=True)
        (staging / version).rename(base / version)
        sync_folder((base / version).parent)
    if staging.exists():
        shutil.rmtree(staging)
