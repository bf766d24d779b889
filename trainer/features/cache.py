"""Features on disk, found again by content.

A *space* is everything but the film that decides its features: the base with its weights, the
preprocess profile, the dtype of the computation. Each has a folder; in it lie *shards*, files
of some films each, that never change::

    b"dnfeat1\\n" | length of the header, uint64 | JSON header | zeros to 64 bytes | float32 rows

The header names the films by the SHA-256 of their files, and the SHA-256 of the rows. A shard
is written under another name and renamed. One that is damaged is thrown away when it is found,
and its films are computed again. Rows are read through memory maps: a set may be larger than
the memory. A shard that no run has used for a quarter of a year is removed: a network or a
profile that nobody trains any more must not fill the disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_MAGIC: Final = b"dnfeat1\n"
_SUFFIX: Final = ".features"
_ALIGNMENT: Final = 64
_MAXIMUM_HEADER: Final = 16_000_000
_KEPT_SECONDS: Final = 90 * 86_400.0

Features = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Space:
    """What decides the features of a film, besides the film."""

    network: str
    weights_sha256: str
    """Of what the base computes: layers, scaling, weights and where it is cut."""
    profile: str
    dtype: str
    shape: tuple[int, ...]
    """Of one film's features."""

    @property
    def key(self) -> str:
        """Names the folder of this space."""
        told = json.dumps([self.network, self.weights_sha256, self.profile, self.dtype, self.shape])
        return f"{self.network}-{hashlib.sha256(told.encode()).hexdigest()[:24]}"


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Features of some films, in their order: float32 [N, ...], read when they are indexed."""

    maps: tuple[Features, ...]
    """The shards, as memory maps."""
    shard: NDArray[np.intp]
    """Of each film, which map."""
    row: NDArray[np.intp]
    """Of each film, which row of it."""

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.row), *self.maps[0].shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, films: NDArray[np.intp] | slice) -> Features:
        """The features of `films`, in memory."""
        shards, rows = self.shard[films], self.row[films]
        result = np.empty((len(rows), *self.shape[1:]), dtype=np.float32)
        for shard in np.unique(shards):
            places = np.flatnonzero(shards == shard)
            result[places] = self.maps[shard][rows[places]]
        return result


class Cache:
    """The shards of one space that hold films of one set."""

    def __init__(self, folder: Path, space: Space, digests: Sequence[str]) -> None:
        self._folder, self._shape = folder / space.key, space.shape
        self._digests = tuple(digests)
        self._wanted = frozenset(digests)
        self._read: dict[Path, tuple[tuple[str, ...], Features] | None] = {}

    def missing(self) -> NDArray[np.bool_]:
        """Of each film, whether it has no features yet; looks for new shards."""
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            if path in self._read:
                continue
            try:
                self._read[path] = _opened(path, self._wanted, self._shape)
            except FileNotFoundError:  # removed by another run
                continue
            except (ValueError, KeyError, TypeError, struct.error):
                # what replaces it may have the same name, so it is not remembered
                path.unlink(missing_ok=True)
        have = {film for found in self._read.values() if found for film in found[0]}
        return np.array([digest not in have for digest in self._digests], dtype=np.bool_)

    def write(self, films: Sequence[str], features: Features) -> None:
        """A new shard. Raises OSError."""
        data = np.ascontiguousarray(features, dtype=np.float32)
        header = json.dumps(
            {
                "films": list(films),
                "shape": list(data.shape),
                "sha256": hashlib.sha256(data.data).hexdigest(),
            }
        ).encode()
        self._folder.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(header).hexdigest()[:32]
        scratch = self._folder / f".{name}.{os.getpid()}"
        try:
            with scratch.open("wb") as stream:
                stream.write(_MAGIC + struct.pack("<Q", len(header)) + header)
                stream.write(b"\0" * (-stream.tell() % _ALIGNMENT))
                stream.write(data.data)
            scratch.replace(self._folder / f"{name}{_SUFFIX}")
        finally:
            scratch.unlink(missing_ok=True)

    def rows(self) -> Rows:
        """Of all films; `missing` must have said that none is. Marks the shards as used."""
        maps: list[Features] = []
        where: dict[str, tuple[int, int]] = {}
        for path, found in self._read.items():
            if found is None:
                continue
            with suppress(FileNotFoundError):  # mapped already, so it is read all the same
                os.utime(path)
            films, features = found
            where |= {film: (len(maps), row) for row, film in enumerate(films)}
            maps.append(features)
        places = np.array([where[digest] for digest in self._digests], dtype=np.intp)
        return Rows(maps=tuple(maps), shard=places[:, 0], row=places[:, 1])


def trim(folder: Path) -> None:
    """Remove the shards below `folder`, of every space, that no run has used for long."""
    for path in folder.glob(f"*/*{_SUFFIX}"):
        with suppress(FileNotFoundError):  # another run was quicker
            if path.stat().st_mtime < time.time() - _KEPT_SECONDS:
                path.unlink()


def _opened(
    path: Path, wanted: frozenset[str], shape: tuple[int, ...]
) -> tuple[tuple[str, ...], Features] | None:
    """The films and rows of a shard that holds a wanted film. Raises ValueError, KeyError,
    TypeError or struct.error when it is damaged."""
    with path.open("rb") as stream:
        header = _header(stream.read(len(_MAGIC) + 8), stream.read)
        offset = stream.tell() + -stream.tell() % _ALIGNMENT
    films = tuple(str(film) for film in header["films"])
    if not wanted.intersection(films):
        return None
    expected = (len(films), *shape)
    if tuple(header["shape"]) != expected:
        raise ValueError("another shape")
    features: Features = np.memmap(path, np.float32, "r", offset=offset, shape=expected)
    if hashlib.sha256(np.asarray(features).data).hexdigest() != header["sha256"]:
        raise ValueError("another checksum")
    return films, features


def _header(start: bytes, read: Any) -> dict[str, Any]:
    if start[: len(_MAGIC)] != _MAGIC:
        raise ValueError("not a shard")
    (length,) = struct.unpack("<Q", start[len(_MAGIC) :])
    if length > _MAXIMUM_HEADER:
        raise ValueError("a header of impossible length")
    header = json.loads(read(length))
    if not isinstance(header, dict):
        raise ValueError("a header that is no object")
    return header
