"""Computing what is missing, each worker its share."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trainer.errors import PeerLost
from trainer.features.base import BATCH, Films, forward_of, stream
from trainer.features.cache import Cache, Rows, Space, trim

FILMS_PER_SHARD: Final = 64
_POLL_SECONDS: Final = 0.05


def _nothing() -> None: ...


def _itself(array: NDArray[np.int64]) -> NDArray[np.int64]:
    return array


@dataclass(frozen=True, kw_only=True)
class Share:
    """Which worker this is, and how it hears of the others."""

    index: int = 0
    workers: int = 1
    total: Callable[[NDArray[np.int64]], NDArray[np.int64]] = _itself
    """The sum of an array over all workers."""
    check: Callable[[], None] = _nothing
    """Raises `PeerLost` when another worker is gone."""
    patience: float = 1800.0
    """Seconds without any new shard of another worker before it counts as lost."""


def cached(
    base: Any,
    tensors: Films,
    digests: Sequence[str],
    *,
    folder: Path,
    space: Space,
    share: Share | None = None,
    batch_size: int = BATCH,
    progress: Callable[[int, int], None] | None = None,
) -> Rows:
    """The features of all films; those that `folder` does not hold yet are computed.

    `tensors` uint8 [N, height, width, 3] (may be a memory map), `digests` the SHA-256 of each
    film's file. The workers agree on what is missing and part it; each writes its shards, then
    waits for those of the others. `progress` hears of this worker's films: done, of how many.
    Raises `PeerLost`, and OSError when a shard cannot be written.
    """
    share = share or Share()
    cache = Cache(folder, space, digests)
    missing = np.flatnonzero(share.total(cache.missing().astype(np.int64)))
    _, first = np.unique(np.array(digests)[missing], return_index=True)
    films = missing[np.sort(first)]  # the same picture twice is computed once
    bounds = [len(films) * n // share.workers for n in (share.index, share.index + 1)]
    own = films[bounds[0] : bounds[1]]
    forward = forward_of(base, space.dtype)
    for start in range(0, len(own), FILMS_PER_SHARD):
        chosen = own[start : start + FILMS_PER_SHARD]
        features = np.empty((len(chosen), *space.shape), dtype=np.float32)
        done = 0
        for rows, values in stream(forward, tensors, chosen, batch_size=batch_size):
            features[done : done + len(rows)] = values
            done += len(rows)
            if progress is not None:
                progress(start + done, len(own))
        cache.write([digests[film] for film in chosen], features)
        share.check()
    _wait(cache, share)
    found = cache.rows()
    trim(folder)
    return found


def _wait(cache: Cache, share: Share) -> None:
    """Until the others' shards are there."""
    left = int(cache.missing().sum())
    since = time.monotonic()
    while left:
        share.check()
        time.sleep(_POLL_SECONDS)
        now = int(cache.missing().sum())
        if now < left:
            left, since = now, time.monotonic()
        elif time.monotonic() - since > share.patience:
            raise PeerLost(
                f"the features of {left} films did not come within {share.patience:.0f} s; "
                "expected them of another worker in the same work folder: pass the same --work, "
                "on a file system that all workers share"
            )
