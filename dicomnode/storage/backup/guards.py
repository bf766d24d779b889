"""What is looked at before a backup or a restore changes anything."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dicomnode.config import Settings
from dicomnode.errors import ConfigError, StorageFull
from dicomnode.storage.backup.manifest import BackupRefused
from dicomnode.storage.database import SQLITE_NAME
from dicomnode.storage.durable import mapped_errors
from dicomnode.storage.owner import IDENTITY_NAME

LOCK_NAME = ".lock"
MARGIN_BYTES = 16 * 1024 * 1024
"""Folders, lists and the file system's own need."""


def require_store(settings: Settings) -> None:
    """A wrong path must not make an empty store and a backup of it."""
    root = settings.storage.root
    name = IDENTITY_NAME if settings.storage.database_url.get_secret_value() else SQLITE_NAME
    if not (root / name).is_file():
        raise ConfigError([f"storage.root {root} holds no store: expected {name} in it"])


def require_apart(root: Path, target: Path) -> None:
    if target.is_relative_to(root) or root.is_relative_to(target):
        raise ConfigError(
            [f"the backup's folder {target} and storage.root {root} must not hold one another"]
        )


def require_room(folder: Path, needed: int, *, next_step: str) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + MARGIN_BYTES:
        raise StorageFull(
            f"{free} bytes free at {folder}, {needed + MARGIN_BYTES} are needed; {next_step}"
        )


@contextmanager
def named_errors(doing: str) -> Iterator[None]:
    """As `mapped_errors`, with the file that it is about: a backup is often the first program
    of another user that looks at it."""
    try:
        yield
    except OSError as error:
        with mapped_errors(f"{doing} ({error.filename})" if error.filename else doing):
            raise


@contextmanager
def alone(target: Path) -> Iterator[None]:
    """One backup at a time in one folder; the kernel lets go when the process ends."""
    with mapped_errors(f"locking {target}"):
        descriptor = os.open(target / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BackupRefused(
                f"another backup is being written to {target}; wait for it, or use another folder"
            ) from error
        yield
    finally:
        os.close(descriptor)
