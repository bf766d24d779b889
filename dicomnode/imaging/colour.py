"""Colour to grey: palette, RGB.

Grey is the luminance Y = 0.299 R + 0.587 G + 0.114 B (PS3.3 C.7.6.3.1.2, YBR_FULL).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut

from dicomnode.imaging.elements import undecodable, value
from dicomnode.imaging.frames import StoredFrame

_WEIGHTS = np.array([19595, 38470, 7471], np.uint32)  # sum 65536: equal channels stay exact
_BAND = 256
_GREY_TOLERANCE = 0.12  # JPEG shifts the chroma of a grey picture by less
_PALETTES = ("Red", "Green", "Blue")
_SEGMENT_ENTRIES = 65536


def luminance8(frame: StoredFrame, *, bits_stored: int) -> NDArray[np.uint8]:
    """uint8 [rows, columns] of RGB words [rows, columns, 3], `bits_stored` wide.

    Works in bands of rows, so that a large image is not held a second time in wide words.
    """
    words = frame.words
    grey = np.empty(words.shape[:2], np.uint8)
    down = max(0, bits_stored - 8)
    up = 255 / ((1 << bits_stored) - 1) if bits_stored < 8 else 1
    for start in range(0, words.shape[0], _BAND):
        band = frame.stored(words[start : start + _BAND]) >> down
        eight = np.rint(np.clip(band, 0, 255) * up).astype(np.uint32)
        grey[start : start + _BAND] = (eight @ _WEIGHTS + 32768) >> 16
    return grey


def coloured(frame: StoredFrame, *, bits_stored: int) -> float:
    """Which part of RGB words is not grey, 0..1, seen on at most some 250 000 of them."""
    step = max(1, round((frame.words.shape[0] * frame.words.shape[1] / 250_000) ** 0.5))
    return float(_chromatic(frame.stored(frame.words[::step, ::step]), bits_stored).mean())


def _chromatic(rgb: NDArray[np.int64], bits: int) -> NDArray[np.bool_]:
    return np.asarray(np.ptp(rgb, axis=-1) / ((1 << bits) - 1) > _GREY_TOLERANCE)


def palette(
    ds: Dataset, stored: NDArray[np.int64], counts: NDArray[np.intp]
) -> tuple[NDArray[np.uint8], float]:
    """Of each of the `stored` values the grey by the palettes of C.7.6.3.1.5 and .6.

    With it comes which part of the pixels, `counts` by value, is not grey. Raises
    `UndecodableImage` when the palettes are missing or malformed.
    """
    _check_segments(ds)
    try:
        rgb = apply_color_lut(np.maximum(stored, 0).astype(np.uint16).reshape(1, -1), ds)
    except MemoryError:
        raise
    except Exception as error:
        raise undecodable(
            ds, f"the palette colour look-up tables are unusable ({type(error).__name__})"
        ) from error
    bits = 8 * rgb.dtype.itemsize
    frame = StoredFrame(words=rgb, bits=bits)
    part = float(counts[_chromatic(rgb[0].astype(np.int64), bits)].sum() / max(1, counts.sum()))
    return luminance8(frame, bits_stored=bits)[0], part


def _check_segments(ds: Dataset) -> None:
    """Segmented palettes (C.7.9.2) name lengths that a few bytes can make enormous."""
    for colour in _PALETTES:
        data = value(ds, f"Segmented{colour}PaletteColorLookupTableData")
        if data is None:
            continue
        if not isinstance(data, bytes):
            raise undecodable(ds, "the segmented palette is no byte string")
        descriptor = value(ds, f"{colour}PaletteColorLookupTableDescriptor")
        wide = descriptor is not None and len(descriptor) == 3 and descriptor[2] == 16
        words = np.frombuffer(data, "<u2" if wide else "u1", len(data) // (2 if wide else 1))
        position = entries = 0
        while position + 1 < words.size:
            opcode, length = int(words[position]), int(words[position + 1])
            if opcode not in (0, 1):
                raise undecodable(ds, "the segmented palette has an indirect segment")
            entries += length
            if entries > _SEGMENT_ENTRIES:
                raise undecodable(ds, "the segmented palette has more than 65536 entries")
            position += 2 + (length if opcode == 0 else 1)
