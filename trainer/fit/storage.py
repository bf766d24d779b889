"""Where a run cannot write: told before it begins, or when the disk is full."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from trainer.errors import StorageFull, UsageError

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


def require_writable(*folders: Path) -> None:
    """Raises `UsageError` when a folder could be neither written to nor made.

    Nothing is made or written: a run that ends at its first look leaves nothing behind.
    """
    for folder in folders:
        there = folder.absolute()
        while not (there.exists() or there.is_symlink()):
            there = there.parent
        if not there.is_dir():
            raise UsageError(f"cannot write to {folder}: {there} is no folder")
        if not os.access(there, os.W_OK | os.X_OK):
            raise UsageError(
                f"cannot write to {folder}: {there} is read-only for this user; name another "
                "folder, or give it to the user that trains"
            )


@contextmanager
def space_required(*folders: Path) -> Iterator[None]:
    """Within it no space left becomes `StorageFull`; other errors pass."""
    try:
        yield
    except _errors_of_writers() as error:
        if not _is_full(error):
            raise
        where = " or ".join(str(folder) for folder in folders)
        raise StorageFull(
            f"no space is left under {where}; nothing was published: free some, then run again "
            "(features and checkpoints written so far are used)"
        ) from error


def _is_full(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in _FULL
    # tensorflow has no code for a full disk, and tells of it in the system's words
    return "No space left on device" in str(error)


def _errors_of_writers() -> tuple[type[Exception], ...]:
    """tensorflow's are among them once it is loaded; loading it takes seconds."""
    tensorflow = sys.modules.get("tensorflow")
    return (OSError,) if tensorflow is None else (OSError, tensorflow.errors.OpError)
