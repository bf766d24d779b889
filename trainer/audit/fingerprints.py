"""Which films may show the same picture, whatever was done to the file in between.

Three sieves, each finer and dearer than the one before; `registration` is the third.

1. `fingerprints`, 64 bits each: the signs, about their median, of the lowest frequencies of a
   cosine transform (Zauner 2010, "pHash") of the *ranks* of the greys on a 32 x 32 grid, of
   the whole film and of its middle. Ranks make them blind to window, gamma and exposure.
   `near_pairs` finds those that differ in few bits without comparing all with all.
2. `Likeness`: how well the fine structure of two films correlates, over small shifts and
   zooms. Chests look alike, so the bits alone accuse one pair of strangers in fifty.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

Grey = NDArray[np.uint8]
Vectors = NDArray[np.float32]

MAXIMUM_BITS: Final = 12
"""Of 64 may differ between films that are looked at more closely."""
MAXIMUM_PAIRS: Final = 4_000_000
"""Near pairs that are held at once; where there are more, fewer bits may differ."""
MINIMUM_LIKENESS: Final = 0.75
"""Of the fine structure, from which on two films are laid over each other."""
THUMBNAIL_SIDE: Final = 96

_GRID: Final = 32
_FREQUENCIES: Final = 8
_BITS: Final = 64
_BLOCK: Final = 256
_MIDDLE: Final = 0.92
_SIDE: Final = 48
_CORE: Final = 36
_REACH: Final = 3
_ZOOMS: Final = (0.92, 0.96, 1.0, 1.04, 1.08)
_SIGMA: Final = 3.0
_REMEMBERED: Final = 2048
"""Films whose cores are kept while pairs are compared: 50 MB."""


def fingerprints(grey: Grey) -> NDArray[np.uint64]:
    """uint64 [2] of a film, uint8 [rows, columns]: the whole, and its middle."""
    rows, columns = grey.shape
    top, left = (round(side * (1 - _MIDDLE) / 2) for side in (rows, columns))
    middle = grey[top : rows - top, left : columns - left]
    return np.array([_fingerprint(grey), _fingerprint(middle)], np.uint64)


def thumbnail(grey: Grey) -> Grey:
    """uint8 [96, 96], what `Likeness` and `registration` need of a film."""
    return reduced(grey, THUMBNAIL_SIDE)


def reduced(grey: Grey, side: int) -> Grey:
    """uint8 [side, side], each the mean of what it covers."""
    image = Image.fromarray(np.ascontiguousarray(grey))
    return np.asarray(image.resize((side, side), Image.Resampling.BOX))


@dataclass(frozen=True, kw_only=True)
class NearPairs:
    """Indices of films, `first` < `second`, the nearest pairs first."""

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    maximum_bits: int
    """How many bits may differ in these pairs."""


def near_pairs(prints: NDArray[np.uint64], *, maximum_pairs: int = MAXIMUM_PAIRS) -> NearPairs:
    """Pairs of films, uint64 [N, 2], any of whose fingerprints differ in few bits.

    Few is `MAXIMUM_BITS`, and less in a set that has more than `maximum_pairs` of these.
    """
    films = len(prints)
    found, bits = _near(prints.ravel(), films, MAXIMUM_BITS, maximum_pairs), MAXIMUM_BITS
    while found is None:
        bits -= 2
        found = _near(prints.ravel(), films, bits, maximum_pairs if bits else films**2)
    first, second = np.divmod(found, max(films, 1))
    apart = np.bitwise_count(prints[first][:, :, None] ^ prints[second][:, None, :])
    nearest = np.lexsort((second, first, apart.min(axis=(1, 2))))
    return NearPairs(first=first[nearest], second=second[nearest], maximum_bits=bits)


def likeness(
    thumbnails: Sequence[Grey], first: NDArray[np.intp], second: NDArray[np.intp]
) -> NDArray[np.float32]:
    """Correlation -1..1 of the fine structure of each pair of films, float32 [P], at the best of
    small shifts and zooms. `thumbnails` are uint8 [96, 96] each."""
    cores_of = lru_cache(maxsize=_REMEMBERED)(lambda index: _cores(thumbnails[index]))
    result = np.empty(len(first), np.float32)
    order = np.argsort(first, kind="stable")
    for pairs in np.split(order, np.flatnonzero(np.diff(first[order])) + 1):
        if not len(pairs):
            continue
        windows = _windows(thumbnails[first[pairs[0]]])
        cores = np.stack([cores_of(index) for index in second[pairs].tolist()])
        fit = cores.reshape(-1, cores.shape[-1]) @ windows.T
        result[pairs] = fit.reshape(len(pairs), -1).max(axis=1)
    return result


def _fingerprint(grey: Grey) -> int:
    spectrum = (_COSINES @ _ranks(reduced(grey, _GRID)) @ _COSINES.T).ravel()[1:]
    bits = np.append(spectrum > np.median(spectrum), False)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _near(
    values: NDArray[np.uint64], films: int, maximum_bits: int, maximum_pairs: int
) -> NDArray[np.int64] | None:
    """Pairs of films as first * films + second, ascending; None when there are too many.

    The bits are cut into one band more than may differ, so two near prints agree in at least
    one whole band (pigeonhole) and only prints of the same band value are compared.
    """
    edges = np.linspace(0, _BITS, maximum_bits + 2).astype(int)
    found = np.empty(0, np.int64)
    for low, high in pairwise(edges.tolist()):
        band = (values >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
        order = np.argsort(band, kind="stable")
        parts, size = [found], len(found)
        for members in np.split(order, np.flatnonzero(np.diff(band[order])) + 1):
            for pairs in _near_within(values, np.sort(members), films, maximum_bits):
                parts.append(pairs)
                size += len(pairs)
                if size > 3 * maximum_pairs:
                    return None
        found = np.unique(np.concatenate(parts))
        if len(found) > maximum_pairs:
            return None
    return found


def _near_within(
    values: NDArray[np.uint64], members: NDArray[np.intp], films: int, maximum_bits: int
) -> Iterator[NDArray[np.int64]]:
    """Near pairs among the prints that are members, a block of rows at a time."""
    chosen, owner = values[members], members // 2
    for start in range(0, len(members), _BLOCK):
        bits = np.bitwise_count(chosen[start : start + _BLOCK, None] ^ chosen[None, start:])
        rows, columns = np.nonzero(np.triu(bits <= maximum_bits, k=1))
        one, other = owner[rows + start], owner[columns + start]
        apart = one != other
        low, high = np.minimum(one, other)[apart], np.maximum(one, other)[apart]
        yield np.unique(low * films + high)


def _windows(film: Grey) -> Vectors:
    """The middle of a film at every small shift [49, 1296]."""
    start = (_SIDE - _CORE) // 2 - _REACH
    detail = _detail(reduced(film, _SIDE))[start : _SIDE - start, start : _SIDE - start]
    return _normed(sliding_window_view(detail, (_CORE, _CORE)).reshape(-1, _CORE, _CORE))


def _cores(film: Grey) -> Vectors:
    """The middle of a film at each zoom [5, 1296]."""
    rim = (_SIDE - _CORE) // 2
    zoomed = (_detail(_zoomed(film, zoom)) for zoom in _ZOOMS)
    return _normed(np.stack([detail[rim:-rim, rim:-rim] for detail in zoomed]))


def _zoomed(film: Grey, zoom: float) -> Grey:
    """Its middle, `zoom` of each side; beyond the film its edge goes on."""
    beyond = 8
    padded = np.pad(film, beyond, mode="edge")
    centre, reach = padded.shape[0] / 2, film.shape[0] * zoom / 2
    box = (centre - reach, centre - reach, centre + reach, centre + reach)
    image = Image.fromarray(padded)
    return np.asarray(image.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR, box=box))


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
    place = np.arange(_SIDE)
    weight = np.exp(-((place[:, None] - place[None, :]) ** 2) / (2 * _SIGMA**2))
    return np.asarray(weight / weight.sum(axis=1, keepdims=True))


_COSINES: Final = _cosines()
_BLUR: Final = _blur()
