"""From stored values to 8-bit grey: modality LUT, VOI LUT or window, polarity.

The order is the standard's (PS3.4 N.2): modality, then VOI, then presentation. Everything
is a function of the stored value alone, so it is composed into one table.

Polarity: MONOCHROME1 shows the least value white (PS3.3 C.7.6.3.1.2), so it is inverted
once, after VOI. Presentation LUT Shape adds nothing: C.8.11.3.1.2 ties IDENTITY to
MONOCHROME2 and INVERSE to MONOCHROME1, it repeats the photometric interpretation, and
taking both into account would invert twice. Where they contradict each other the
photometric interpretation, which every viewer obeys, decides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from dicomnode.imaging.elements import integer, items, real, text, undecodable, value

Values = NDArray[np.float64]
Transform = Callable[[Values], Values]

TAIL = 0.005
"""Part of the pixels that the default window leaves out at each end."""


@dataclass(frozen=True, kw_only=True)
class LookupTable:
    """A LUT of PS3.3 C.11.1.1 or C.11.2.1.1: `entries[value - first]`, ends repeated."""

    first: int
    entries: Values
    maximum: float
    """2 ** bits - 1 of the descriptor."""

    def __call__(self, values: Values) -> Values:
        index = np.clip(np.rint(values - self.first), 0, self.entries.size - 1)
        return self.entries[index.astype(np.intp)]


def modality_transform(ds: Dataset, *, signed: bool) -> Transform:
    """(0028,3000) Modality LUT Sequence, or Rescale Slope and Intercept (C.11.1).

    Raises `UndecodableImage` for a malformed LUT or a slope of 0.
    """
    sequence = items(ds, "ModalityLUTSequence")
    if sequence:
        return _lookup_table(ds, sequence[0], "Modality LUT Sequence", signed=signed)
    slope, intercept = real(ds, "RescaleSlope"), real(ds, "RescaleIntercept")
    if slope == 0:
        raise undecodable(ds, "(0028,1053) Rescale Slope is 0, which leaves no image")
    if slope is None:
        return lambda values: values
    offset = intercept or 0.0
    return lambda values: values * slope + offset


def voi_transform(ds: Dataset, *, signed: bool) -> Transform | None:
    """The VOI LUT, else the window, to 0..1; None when the header gives neither (C.11.2).

    The first of several is taken. An unusable window (no number, width below 1, or not
    above 0 for LINEAR_EXACT and SIGMOID) counts as none. Raises `UndecodableImage` for a
    malformed LUT.
    """
    sequence = items(ds, "VOILUTSequence")
    if sequence:
        table = _lookup_table(ds, sequence[0], "VOI LUT Sequence", signed=signed)
        return lambda values: table(values) / table.maximum
    center, width = real(ds, "WindowCenter"), real(ds, "WindowWidth")
    function = text(ds, "VOILUTFunction").upper() or "LINEAR"
    if center is None or width is None or width <= 0 or (function == "LINEAR" and width < 1):
        return None
    return window(center, width, function)


def window(center: float, width: float, function: str = "LINEAR") -> Transform:
    """C.11.2.1.2.1 LINEAR, C.11.2.1.3.1 SIGMOID, C.11.2.1.3.2 LINEAR_EXACT, to 0..1."""
    if function == "SIGMOID":
        return lambda values: 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -50, 50)))
    if function == "LINEAR_EXACT":
        return lambda values: np.clip((values - center) / width + 0.5, 0, 1)
    if width == 1:
        return lambda values: (values > center - 0.5).astype(np.float64)
    return lambda values: np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1)


def full_range(low: float, high: float) -> Transform:
    """`low` to 0, `high` to 1; a constant image to 0."""
    if high <= low:
        return np.zeros_like
    return lambda values: np.clip((values - low) / (high - low), 0, 1)


def tail_bounds(values: Values, weights: NDArray[np.integer[Any]]) -> tuple[float, float]:
    """The values that leave `TAIL` of the weight outside at each end.

    `weights` counts the pixels of each of `values`. The rule is the same from both ends,
    so an inverted image gets the inverted bounds.
    """
    order = np.argsort(values, kind="stable")
    ranked, counts = values[order], weights[order]
    share = TAIL * counts.sum()
    low = ranked[np.argmax(np.cumsum(counts) > share)]
    high = ranked[::-1][np.argmax(np.cumsum(counts[::-1]) > share)]
    return float(low), float(high)


def padding_range(ds: Dataset, *, signed: bool) -> tuple[int, int] | None:
    """Stored values that stand for "no image here", both ends included (C.7.5.1.1.2)."""
    padding = integer(ds, "PixelPaddingValue")
    if padding is None:
        return None
    limit = integer(ds, "PixelPaddingRangeLimit")
    ends = [
        _as_stored(end, signed=signed) for end in (padding, padding if limit is None else limit)
    ]
    return min(ends), max(ends)


def _as_stored(number: int, *, signed: bool) -> int:
    """Undo a US read as SS, or the reverse: the VR depends on Pixel Representation."""
    if signed and 0x8000 <= number <= 0xFFFF:
        return number - 0x10000
    if not signed and number < 0:
        return number + 0x10000
    return number


def _lookup_table(ds: Dataset, item: Dataset, name: str, *, signed: bool) -> LookupTable:
    descriptor = value(item, "LUTDescriptor")
    if not isinstance(descriptor, MultiValue | list | tuple) or len(descriptor) != 3:
        raise undecodable(ds, f"{name}: LUT Descriptor must have 3 values")
    try:
        count, first, bits = (int(number) for number in descriptor)
    except (TypeError, ValueError) as error:
        raise undecodable(ds, f"{name}: LUT Descriptor must hold integers") from error
    count = count or 65536
    if not 1 <= bits <= 16 or not 1 <= count <= 65536:
        raise undecodable(ds, f"{name}: LUT Descriptor asks for {count} entries of {bits} bits")
    entries = _entries(value(item, "LUTData"), count)
    if entries is None:
        raise undecodable(ds, f"{name}: LUT Data does not hold the {count} entries declared")
    return LookupTable(
        first=_as_stored(first, signed=signed), entries=entries, maximum=float((1 << bits) - 1)
    )


def _entries(data: Any, count: int) -> Values | None:
    if isinstance(data, bytes | bytearray):
        wide = len(data) >= 2 * count
        if len(data) < count:
            return None
        return np.frombuffer(data, "<u2" if wide else "u1", count).astype(np.float64)
    if isinstance(data, int):
        data = [data]
    try:
        values = np.asarray(data, np.float64)
    except (TypeError, ValueError):
        return None
    return values[:count] % 65536 if values.ndim == 1 and values.size >= count else None
