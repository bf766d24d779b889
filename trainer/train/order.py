"""Which film is seen when, by whom and how. Pure numpy.

Everything follows from (seed, epoch): a run that continues at epoch 12 sees what an
undisturbed one sees there, and each worker sees its rows of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ORDER, _VARIATION = 0, 1
"""Numbers of the random streams of an epoch."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """One worker's rows of some global batches, all with the same number of rows."""

    films: NDArray[np.intp]
    """[steps, rows]: positions in the training part. Padding repeats a film, with weight 0."""
    weights: NDArray[np.float32]
    """[steps, rows]: 1, and 0 for padding, so that every worker makes every step."""
    first_row: int
    """Of the global batch, that this worker has."""
    rows: int
    """Of each global batch, over all workers."""


def epoch_order(seed: int, epoch: int, films: int) -> NDArray[np.intp]:
    """A permutation of the training films, the same on every worker."""
    return np.random.default_rng((seed, epoch, _ORDER)).permutation(films)


def shares(
    order: NDArray[np.intp], *, batch_size: int, workers: int, index: int, steps_per_call: int
) -> Iterator[Share]:
    """The rows of worker `index`: full batches, `steps_per_call` at a time, then the rest.

    Of a batch of b rows a worker takes the next ceil(b / workers) after those of the workers
    before it; no row is taken twice, none is left out.
    """
    full = len(order) // batch_size * batch_size
    batches = order[:full].reshape(-1, batch_size)
    for start in range(0, len(batches), steps_per_call):
        yield _share(batches[start : start + steps_per_call], workers, index)
    if full < len(order):
        yield _share(order[full:].reshape(1, -1), workers, index)


def _share(batches: NDArray[np.intp], workers: int, index: int) -> Share:
    steps, rows = batches.shape
    each = -(-rows // workers)
    first = min(index * each, rows)
    own = batches[:, first : first + each]
    films = np.repeat(batches[:, :1], each, axis=1)
    films[:, : own.shape[1]] = own
    weights = np.zeros((steps, each), dtype=np.float32)
    weights[:, : own.shape[1]] = 1.0
    return Share(films=films, weights=weights, first_row=first, rows=rows)


@dataclass(frozen=True, kw_only=True)
class Variation:
    """How each training film is shown in one epoch: perhaps mirrored, and moved by up to a
    twentieth of its size."""

    moves: NDArray[np.float64]
    """[films, 2] in -1..1: down and right."""
    mirrored: NDArray[np.bool_]

    @classmethod
    def drawn(cls, seed: int, epoch: int, films: int) -> Variation:
        rng = np.random.default_rng((seed, epoch, _VARIATION))
        return cls(moves=rng.uniform(-1.0, 1.0, (films, 2)), mirrored=rng.random(films) < 0.5)

    def apply(self, images: NDArray[Any], films: NDArray[np.intp]) -> NDArray[Any]:
        """`images` [N, height, width, channels] are those of `films` [N]."""
        varied = np.empty_like(images)
        reach = images.shape[1] // 20
        for place, (image, film) in enumerate(zip(images, films, strict=True)):
            down, right = np.rint(self.moves[film] * reach).astype(int)
            padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
            moved = padded[
                reach + down : reach + down + image.shape[0],
                reach + right : reach + right + image.shape[1],
            ]
            varied[place] = moved[:, ::-1] if self.mirrored[film] else moved
        return varied
