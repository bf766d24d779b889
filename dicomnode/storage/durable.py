"""Files and folders that survive a power cut.

A file is durable when its bytes are synced and the entry in its folder is; a new
folder's own entry needs the same in its parent (fsync(2)).
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dicomnode.errors import StorageFull, StorageUnavailable

_FULL = (errno.ENOSPC, errno.EDQUOT)
_REMEMBERED = 10_000


def sync_file(path: Path | str) -> None:
    _sync(path, os.O_RDONLY)


def sync_folder(path: Path | str) -> None:
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path | str, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def parent(path: str) -> str:
    """The folder that an absolute path is in."""
    return path.rpartition("/")[0]


class DurableFolders:
    """Makes folders under a root and remembers which are known to be durable.

    A folder that exists is not enough: another thread may have made it a moment ago and
    not synced its parent yet. Folders are absolute paths in text, because taking a `Path`
    apart costs more than the look-up, once for every instance.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._durable: set[str] = set()
        self._lock = threading.Lock()

    def make(self, folder: str) -> list[str]:
        """Make `folder` and its parents below the root; returns those whose entry in their
        parent is not known to be durable, for `sync`."""
        missing = []
        while folder != self._root and folder not in self._durable:
            missing.append(folder)
            folder = parent(folder)
        for new in reversed(missing):
            Path(new).mkdir(exist_ok=True)
        return missing

    def sync(self, made: list[str]) -> None:
        """Make what `make` returned durable.

        Called after the file's own folder was synced: a journal that was just committed
        has the parents in it already, and their syncs cost nothing.
        """
        if not made:
            return
        for folder in made:
            sync_folder(parent(folder))
        with self._lock:
            if len(self._durable) >= _REMEMBERED:
                self._durable.clear()
            self._durable.update(made)

    def forget(self, folder: str) -> None:
        """Forget `folder` and its parents: somebody removed one of them."""
        with self._lock:
            self._durable -= {folder, *map(str, Path(folder).parents)}


@contextmanager
def mapped_errors(doing: str) -> Iterator[None]:
    """An OSError as `StorageFull` or `StorageUnavailable`; `doing` says what was tried."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull(f"no space left while {doing}; free space, it will be retried") from (
                error
            )
        raise StorageUnavailable(f"{doing} failed: {error.strerror or 'input/output'}") from error
