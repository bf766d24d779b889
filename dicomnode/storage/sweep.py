"""What a crash leaves behind, removed at the next start.

Three kinds of files were never acknowledged: everything in `incoming/`, and a file under
`instances/` or `conflicts/` that no row names, because a node died between the rename and
the commit. The latter can only be in a series folder that changed since the last sweep
began, so after an orderly stop nothing is looked at, and after a crash one `stat` per
series folder finds the few that are. The order makes it safe: folders are listed first
and the index is asked second, while nobody receives; a crash during the sweep leaves the
old `swept_at`, so the next one looks at the same folders again.

When several nodes share a root, others may be receiving: files younger than
`SHARED_GRACE_SECONDS` are left alone, and looked at again next time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dicomnode.storage.durable import mapped_errors

SHARED_GRACE_SECONDS = 3600.0
"""Longer than any association can hold a received file without its row."""

_CLOCK_SLACK_SECONDS = 10.0
"""File systems keep coarse times; a folder is rather looked at once too often."""


@dataclass(frozen=True, kw_only=True)
class Swept:
    """What a sweep removed."""

    incoming: int
    orphans: int
    folders: int
    """Series folders that were looked into."""
    swept_at: float
    """Pass it as `since` to the next sweep."""


def sweep(
    root: Path,
    named_paths: Callable[[Iterable[str]], set[str]],
    *,
    since: float,
    look_for_orphans: bool = True,
    grace_seconds: float = 0.0,
) -> Swept:
    """Remove what nobody was promised. `named_paths` says which of some relative paths the
    index names. `since` is a POSIX time, 0.0 for everything. Raises `StorageUnavailable`."""
    began = time.time()
    young = began - grace_seconds if grace_seconds else float("inf")
    incoming = orphans = folders = 0
    with mapped_errors("sweeping the store"):
        for entry in _entries(root / "incoming"):
            incoming += _remove(entry.path, young)
        for series in _changed_series(root, since) if look_for_orphans else ():
            folders += 1
            orphans += _sweep_series(root, series, named_paths, young)
    return Swept(
        incoming=incoming,
        orphans=orphans,
        folders=folders,
        swept_at=began - grace_seconds - _CLOCK_SLACK_SECONDS,
    )


def _changed_series(root: Path, since: float) -> Iterator[str]:
    for name in ("instances", "conflicts"):
        for study in _entries(root / name):
            for series in _entries(study.path):
                if series.stat(follow_symlinks=False).st_mtime >= since:
                    yield series.path


def _sweep_series(
    root: Path, series: str, named_paths: Callable[[Iterable[str]], set[str]], young: float
) -> int:
    found = [os.path.relpath(entry.path, root) for entry in _entries(series)]
    named = named_paths(found)
    return sum(_remove(str(root / path), young) for path in found if path not in named)


def _remove(path: str, young: float) -> int:
    """1 when it was removed; 0 when it is younger than `young`, or a folder."""
    file = Path(path)
    if file.is_dir() or file.lstat().st_mtime >= young:
        return 0
    file.unlink()
    return 1


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return []
