"""The model versions of a backup: published ones and those that a rollback withdrew."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from dicomnode.storage.backup.manifest import in_order

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
