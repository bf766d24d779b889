"""One writer of a model directory at a time; the lock ends with the process."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from trainer.errors import RegistryError

_LOCK: Final = ".lock"


@contextmanager
def locked(base: Path) -> Iterator[None]:
    """Hold ``BASE/.lock``. Raises `RegistryError` when `base` cannot be written to."""
    try:
        base.mkdir(parents=True, exist_ok=True)
        handle = os.open(base / _LOCK, os.O_RDWR | os.O_CREAT, 0o664)
    except OSError as error:
        raise RegistryError(f"cannot write to {base}: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
