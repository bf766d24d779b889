"""Opening the store for a command that looks at it while the node may be running."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dicomnode.config import load
from dicomnode.storage import Storage, open_storage


@contextmanager
def opened(config: Path | None) -> Iterator[Storage]:
    """The store that the settings name."""
    storage = open_storage(load(config).storage)
    try:
        yield storage
    finally:
        storage.close()
