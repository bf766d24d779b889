"""An instance's first frame as 8-bit grey, bright where the body is dense.

=====================  ======================================================
Step                   Source
=====================  ======================================================
limits                 PS3.3 C.7.6.3, the compressed frame's own header
first frame            PS3.5 8, A.4 and the codec
modality LUT           PS3.3 C.11.1
VOI LUT, window        PS3.3 C.11.2; without either, the default window below
MONOCHROME1            inverted once, after VOI
padding                PS3.3 C.7.5.1.1.2: left out of the default window, painted black
palette, RGB, YBR      the luminance
=====================  ======================================================

The default window, for images that give none: up to 8 bits the full range of stored
values (which is what viewers show, and what image files hold); beyond, from the 0.5th to
the 99.5th percentile of the pixels that are not padding, since 16-bit detectors use a
small part of their range and a few bright markers must not darken the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicomnode.imaging import colour, limits, luts
from dicomnode.imaging.elements import undecodable
from dicomnode.imaging.frames import StoredFrame, Words, first_frame
from dicomnode.imaging.limits import PixelDescription

_BAND = 256
_SAMPLES = 4_000_000


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A decoded first frame."""

    grey: NDArray[np.uint8]
    """uint8 [rows, columns], 0 black, bright = dense."""
    coloured: float
    """Which part of the pixels was not grey before, 0..1."""


def grey8(ds: Dataset, *, maximum_pixels: int) -> NDArray[np.uint8]:
    """uint8 [rows, columns], 0 black, bright = dense, of the first frame.

    Raises `UndecodableImage`, whose message names the SOP Instance UID, the transfer
    syntax and what was wrong.
    """
    return picture(ds, maximum_pixels=maximum_pixels).grey


def picture(ds: Dataset, *, maximum_pixels: int) -> Picture:
    """As `grey8`, and how much colour there was."""
    description = limits.describe(ds, maximum_pixels=maximum_pixels)
    frame = first_frame(ds, description)
    if description.photometric_interpretation in limits.MONOCHROME:
        return Picture(grey=_monochrome(ds, description, frame), coloured=0.0)
    bits = description.bits_stored
    if description.photometric_interpretation == "PALETTE COLOR":
        if frame.words.dtype.itemsize > 2:
            raise undecodable(ds, "PALETTE COLOR needs 8 or 16 Bits Allocated")
        table, coloured = colour.palette(ds, *_histogram(frame))
        return Picture(grey=np.take(table, frame.words), coloured=coloured)
    return Picture(
        grey=colour.luminance8(frame, bits_stored=bits),
        coloured=colour.coloured(frame, bits_stored=bits),
    )


def _monochrome(
    ds: Dataset, description: PixelDescription, frame: StoredFrame
) -> NDArray[np.uint8]:
    modality = luts.modality_transform(ds, signed=description.signed)
    padding = luts.padding_range(ds, signed=description.signed)
    voi = luts.voi_transform(ds, signed=description.signed)
    if voi is None:
        voi = _default_window(description, frame, modality, padding)
    inverted = description.photometric_interpretation == "MONOCHROME1"

    def shade(stored: NDArray[np.int64]) -> NDArray[np.uint8]:
        grey = voi(modality(stored.astype(np.float64)))
        shades = _to_8_bit(1 - grey if inverted else grey)
        if padding is not None:
            shades[(stored >= padding[0]) & (stored <= padding[1])] = 0
        return shades

    return _applied(frame, shade)


def _default_window(
    description: PixelDescription,
    frame: StoredFrame,
    modality: luts.Transform,
    padding: tuple[int, int] | None,
) -> luts.Transform:
    if description.bits_stored <= 8:
        low, high = description.stored_range
        outputs = modality(np.arange(low, high + 1, dtype=np.float64))
        return luts.full_range(float(outputs.min()), float(outputs.max()))
    stored, counts = _histogram(frame)
    if padding is not None:
        counts = np.where((stored >= padding[0]) & (stored <= padding[1]), 0, counts)
    if not counts.any():
        return luts.full_range(0, 0)
    return luts.full_range(*luts.tail_bounds(modality(stored.astype(np.float64)), counts))


def _histogram(frame: StoredFrame) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """Stored values and how many pixels have them."""
    if frame.words.dtype.itemsize <= 2:
        counts = np.bincount(frame.words.reshape(-1), minlength=_word_count(frame))
        return frame.stored(_every_word(frame)), counts
    flat = frame.words.reshape(-1)
    sample = flat[:: max(1, flat.size // _SAMPLES)]
    stored, counts = np.unique(frame.stored(sample), return_counts=True)
    return stored, counts


def _applied(frame: StoredFrame, shade: Any) -> NDArray[np.uint8]:
    """`shade` of every pixel: through one table for words of 8 and 16 bits, else in bands."""
    if frame.words.dtype.itemsize <= 2:
        table: NDArray[np.uint8] = shade(frame.stored(_every_word(frame)))
        return np.take(table, frame.words)
    grey = np.empty(frame.words.shape, np.uint8)
    for start in range(0, len(grey), _BAND):
        grey[start : start + _BAND] = shade(frame.stored(frame.words[start : start + _BAND]))
    return grey


def _to_8_bit(grey: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.rint(np.clip(grey, 0, 1) * 255).astype(np.uint8)


def _word_count(frame: StoredFrame) -> int:
    return 1 << 8 * frame.words.dtype.itemsize


def _every_word(frame: StoredFrame) -> Words:
    return np.arange(_word_count(frame), dtype=frame.words.dtype)
