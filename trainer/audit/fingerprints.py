"""Which films show the same picture, whatever was done to the file in between.

Three sieves, each finer and dearer than the one before:

1. `fingerprint`, 64 bits: the signs, about their median, of the lowest frequencies of a cosine
   transform (Zauner 2010, "pHash") of the *ranks* of the greys on a 32 x 32 grid. Ranks
   make it blind to window, gamma and exposure.
2. `near_pairs`: fingerprints that differ in few bits, found without comparing all with all.
3. `Comparison.sameness`, 0..1: how well the fine structure of two films correlates, over
   small shifts and crops. Chests look alike, so the bits alone would accuse many pairs of
   strangers; ribs and lung vessels are nobody else's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

Grey = NDArray[np.uint8]
Vectors = NDArray[np.float32]

MAXIMUM_BITS: Final = 10
"""Of 64 may differ between films that are compared closely."""
SAME: Final = 0.86
"""Sameness from which on two films count as one."""
THUMBNAIL_SIDE: Final = 48

_GRID: Final = 32
_FREQUENCIES: Final = 8
_BITS: Final = 64
_BANDS: Final = MAXIMUM_BITS + 1
_REACH: Final = 3
_MARGIN: Final = THUMBNAIL_SIDE // 8
_ZOOMS: Final = (1.0, 0.96, 0.92)
_SIGMA: Final = 3.0


def fingerprint(grey: Grey) -> np.uint64:
    """64 bits of a film, uint8 [rows, columns]."""
    spectrum = (_COSINES @ _ranks(reduced(grey, _GRID)) @ _COSINES.T).ravel()[1:]
    bits = np.append(spectrum > np.median(spectrum), False)
    return np.uint64(int.from_bytes(np.packbits(bits).tobytes(), "big"))


def thumbnail(grey: Grey) -> Grey:
    """uint8 [48, 48], what `Comparison` needs of a film."""
    return reduced(grey, THUMBNAIL_SIDE)


def reduced(grey: Grey, side: int) -> Grey:
    """uint8 [side, side], each the mean of what it covers."""
    image = Image.fromarray(np.ascontiguousarray(grey))
    return np.asarray(image.resize((side, side), Image.Resampling.BOX))


def near_pairs(
    fingerprints: NDArray[np.uint64],
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.uint8]]:
    """Index pairs first < second of uint64 [N] that differ in at most `MAXIMUM_BITS` bits,
    and in how many, the nearest pairs first.

    The bits are cut into one band more than may differ, so two near ones agree in at least
    one whole band (pigeonhole) and only films of the same band value are compared.
    """
    edges = np.linspace(0, _BITS, _BANDS + 1).astype(int)
    found = []
    for low, high in pairwise(edges.tolist()):
        mask = np.uint64((1 << (high - low)) - 1)
        band = (fingerprints >> np.uint64(low)) & mask
        order = np.argsort(band, kind="stable")
        for members in np.split(order, np.flatnonzero(np.diff(band[order])) + 1):
            found.append(_near_within(fingerprints, np.sort(members)))
    pairs = np.unique(np.concatenate(found), axis=0) if found else np.empty((0, 2), np.intp)
    first, second = pairs[:, 0], pairs[:, 1]
    bits = np.bitwise_count(fingerprints[first] ^ fingerprints[second])
    nearest = np.lexsort((second, first, bits))
    return first[nearest], second[nearest], bits[nearest]


class Comparison:
    """Compares films by their thumbnails, uint8 [48, 48] each."""

    def __init__(self, thumbnails: Sequence[Grey]) -> None:
        self._thumbnails = thumbnails
        self._prepared = lru_cache(maxsize=512)(self._prepare)

    def sameness(self, first: int, second: int) -> float:
        """Correlation of the fine structure at the best of small shifts and crops, -1..1."""
        one, other = self._prepared(first), self._prepared(second)
        return float(
            max(
                (one[1] @ other[0].T).max(),  # other's middle, zoomed, in one
                (other[1] @ one[0].T).max(),
            )
        )

    def _prepare(self, index: int) -> tuple[Vectors, Vectors]:
        """The middle of a film at each zoom [3, k], and its every shifted middle [49, k]."""
        film = self._thumbnails[index]
        middles = [
            _detail(_zoomed(film, zoom))[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN] for zoom in _ZOOMS
        ]
        start = _MARGIN - _REACH
        side = THUMBNAIL_SIDE - 2 * _MARGIN
        windows = sliding_window_view(
            _detail(film)[start : THUMBNAIL_SIDE - start, start : THUMBNAIL_SIDE - start],
            (side, side),
        )
        return _normed(np.stack(middles)), _normed(windows.reshape(-1, side, side))


def _near_within(
    fingerprints: NDArray[np.uint64], members: NDArray[np.intp], block: int = 1024
) -> NDArray[np.intp]:
    """Near pairs [P, 2] among the members, a block of rows at a time: memory stays flat."""
    values = fingerprints[members]
    pairs = [np.empty((0, 2), np.intp)]
    for start in range(0, len(members), block):
        bits = np.bitwise_count(values[start : start + block, None] ^ values[None, start:])
        rows, columns = np.nonzero(np.triu(bits <= MAXIMUM_BITS, k=1))
        pairs.append(np.stack((members[rows + start], members[columns + start]), axis=1))
    return np.concatenate(pairs)


def _zoomed(film: Grey, zoom: float) -> Grey:
    if zoom == 1.0:
        return film
    side = film.shape[0]
    rim = side * (1 - zoom) / 2
    box = (rim, rim, side - rim, side - rim)
    return np.asarray(
        Image.fromarray(film).resize((side, side), Image.Resampling.BILINEAR, box=box)
    )


def _detail(film: Grey) -> NDArray[np.float64]:
    """Ranks of the greys less their surroundings."""
    ranked = _ranks(film)
    return ranked - _BLUR @ ranked @ _BLUR.T


def _normed(pictures: NDArray[np.float64]) -> Vectors:
    flat = pictures.reshape(len(pictures), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return (flat / np.maximum(length, 1e-9)).astype(np.float32)


def _ranks(film: Grey) -> NDArray[np.float64]:
    """Mid-ranks, 0..1: equal greys share one rank."""
    counts = np.bincount(film.ravel(), minlength=256)
    middle: NDArray[np.float64] = (np.cumsum(counts) - counts / 2) / film.size
    return middle[film]


def _cosines() -> NDArray[np.float64]:
    """DCT-II, its lowest rows [8, 32]."""
    frequency, place = np.mgrid[0:_FREQUENCIES, 0:_GRID]
    return np.asarray(np.cos(np.pi * (2 * place + 1) * frequency / (2 * _GRID)))


def _blur() -> NDArray[np.float64]:
    """A Gaussian along one axis as a matrix [48, 48]; the edge counts as much as the middle."""
    place = np.arange(THUMBNAIL_SIDE)
    weight = np.exp(-((place[:, None] - place[None, :]) ** 2) / (2 * _SIGMA**2))
    return np.asarray(weight / weight.sum(axis=1, keepdims=True))


_COSINES: Final = _cosines()
_BLUR: Final = _blur()
