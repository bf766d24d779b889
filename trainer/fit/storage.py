"""A full disk, whoever meets it."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from trainer.errors import StorageFull

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


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
