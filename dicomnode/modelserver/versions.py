"""Which versions there are, and which of them are wanted: a look at a folder and pure
decisions about what was seen.

Source: FileSystemStoragePathSource of TensorFlow Serving: a version is a folder whose
name is a number; everything else (staging, `withdrawn/`) is passed over.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Which versions are served: `specific` when given, otherwise the `latest` newest."""

    latest: int = 1
    specific: tuple[int, ...] = ()
    everything: bool = False


@dataclass(frozen=True)
class Found:
    """A version on disk. `stamp` changes when its files are replaced."""

    path: Path
    stamp: tuple[int, ...]


def look(base_path: Path) -> dict[int, Found]:
    """The versions below `base_path`. Raises OSError when the folder cannot be read."""
    found: dict[int, Found] = {}
    for entry in sorted(base_path.iterdir()):
        name = entry.name
        if not (name.isascii() and name.isdigit()) or not entry.is_dir():
            continue
        found[int(name)] = Found(entry, _stamp(entry))
    return found


def _stamp(version: Path) -> tuple[int, ...]:
    numbers: list[int] = []
    for path in (version, version / "saved_model.pb", version / "variables"):
        try:
            status = path.stat()
        except OSError:
            numbers.append(0)
        else:
            numbers += [status.st_ino, status.st_mtime_ns, status.st_size]
    return tuple(numbers)


def wanted(found: Collection[int], policy: Policy) -> list[int]:
    """The versions that should be served, newest first.

    ==================  ==========  =======
    Found               Policy      Wanted
    ==================  ==========  =======
    1, 2, 3             latest 1    3
    1, 2, 3             latest 2    3, 2
    1, 2 (3 withdrawn)  latest 1    2
    1, 2, 3             specific 1  1
    1, 2, 3             everything  3, 2, 1
    ==================  ==========  =======
    """
    newest_first = sorted(found, reverse=True)
    if policy.everything:
        return newest_first
    if policy.specific:
        return [version for version in newest_first if version in policy.specific]
    return newest_first[: policy.latest]


@dataclass(frozen=True, kw_only=True)
class Step:
    """What to do next: load versions (newest first), then unload those."""

    load: tuple[int, ...]
    unload: tuple[int, ...]


def next_step(*, wanted: Collection[int], available: Collection[int]) -> Step:
    """Load first, unload afterwards (AvailabilityPreservingPolicy of TensorFlow Serving).

    A version that is no longer wanted stays until every wanted one is available, so that
    one that fails to load leaves the old one serving. When nothing is wanted, nothing is
    served.
    """
    load = tuple(sorted(set(wanted) - set(available), reverse=True))
    unload = () if load else tuple(sorted(set(available) - set(wanted)))
    return Step(load=load, unload=unload)
