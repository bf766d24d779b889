"""Where a version is written before it is published.

Each staging folder has a lock file beside it, held by its writer and let go by the kernel
when the writer ends, however it ends. Whoever stages next removes folders whose lock
nobody holds: what a killed publisher left. Folders without a lock file are somebody
else's and stay.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from trainer.errors import RegistryError
from trainer.registry.directory import publish
from trainer.registry.locks import locked

STAGING: Final = ".staging-"
_LOCK_SUFFIX: Final = ".lock"


@contextmanager
def staging(base: Path) -> Iterator[Path]:
    """A fresh hidden folder on the file system of `base`, for `publish`.

    It is removed on the way out unless `publish` moved it. Raises `RegistryError` when
    `base` cannot be written to.
    """
    with locked(base):
        _sweep(base)
        folder, lock, handle = _begin(base)
    try:
        yield folder
    finally:
        if folder.exists():
            shutil.rmtree(folder)
        lock.unlink(missing_ok=True)
        os.close(handle)


def publish_copy(source: Path, base: Path) -> int:
    """Publish a copy of the version folder `source`; returns its number.

    Raises `RegistryError` when it is no version or cannot be copied.
    """
    if not (source / "saved_model.pb").is_file():
        raise RegistryError(f"{source} holds no saved_model.pb; expected a version's folder")
    with staging(base) as folder:
        try:
            shutil.copytree(source, folder, dirs_exist_ok=True)
        except (OSError, shutil.Error) as error:
            raise RegistryError(f"cannot copy {source} into {base}: {error}") from error
        return publish(folder, base)


def _begin(base: Path) -> tuple[Path, Path, int]:
    folder = base / f"{STAGING}{uuid.uuid4().hex}"
    lock = folder.with_name(folder.name + _LOCK_SUFFIX)
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o664)
    except OSError as error:
        raise RegistryError(f"cannot write to {base}: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        folder.mkdir()
    except OSError as error:
        os.close(handle)
        lock.unlink(missing_ok=True)
        raise RegistryError(f"cannot write to {base}: {error.strerror}") from error
    return folder, lock, handle


def _sweep(base: Path) -> None:
    """Remove what dead publishers left. Only under the registry's lock: between a lock
    file's birth and its flock nobody else looks."""
    for lock in base.glob(f"{STAGING}*{_LOCK_SUFFIX}"):
        try:
            handle = os.open(lock, os.O_RDWR)
        except FileNotFoundError:
            continue  # its publisher has just ended
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue  # at work
        else:
            folder = lock.with_name(lock.name.removesuffix(_LOCK_SUFFIX))
            if folder.exists():
                shutil.rmtree(folder)
            lock.unlink(missing_ok=True)
        finally:
            os.close(handle)
