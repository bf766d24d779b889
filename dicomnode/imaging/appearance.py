"""Do the pixels look like a frontal chest radiograph?

Asked only of images whose header names no body part. The answer is one number that can be
explained: how well the ranks of the greys, on a 32 x 32 grid, correlate with a drawing of
a frontal chest. The drawing has two dark lungs that lean outward, a bright mediastinum
between them, bright walls beside them, a bright abdomen below, and dark air above the
shoulders and at the sides. It is drawn at two widths, heights and positions, and held
against the whole image and against crops of 84 % of it, since collimation varies; the
best fit counts. Ranks make it blind to window and exposure, but not to polarity: an
image with bright lungs correlates negatively.

It tells gross errors (another body part, a wrong polarity, a screen shot, an image on its
side) from chests; it does not tell a good chest from a bad one, nor upright from upside
down for certain. Of 368 radiographs from several hospitals 98 % pass, lungs white with
pneumonia included; with inverted polarity under 1 % do, turned on their side 1 %.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MINIMUM_LIKENESS = 0.42
"""Correlation from which on an image looks like a frontal chest radiograph."""

_GRID = 32
_MARGIN = 6
_SHIFTS = range(0, _MARGIN + 1, 2)


def likeness(grey: NDArray[np.uint8]) -> float:
    """Correlation, -1..1, of uint8 [rows, columns] with a frontal chest."""
    whole = _reduced(grey, _GRID)
    wide = _reduced(grey, _GRID + _MARGIN)
    crops = [wide[y : y + _GRID, x : x + _GRID] for y in _SHIFTS for x in _SHIFTS]
    ranked = np.stack([_ranks(view).ravel() for view in (whole, *crops)])
    centred = ranked - (ranked @ _WEIGHT)[:, None]
    spread = np.sqrt((centred**2) @ _WEIGHT)
    fit = (centred * _WEIGHT) @ _DRAWINGS.T
    return float(np.max(fit / np.maximum(spread, 1e-6)[:, None]))


def _reduced(grey: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(grey).resize((size, size), Image.Resampling.BOX))


def _ranks(view: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mid-ranks, 0..1: equal greys share one rank."""
    counts = np.bincount(view.ravel(), minlength=256)
    middle: NDArray[np.float64] = (np.cumsum(counts) - counts / 2) / view.size
    return middle[view]


def _drawing(width: float, height: float, centre: float) -> NDArray[np.float64]:
    """A frontal chest on the grid, both axes -0.5..0.5, y downward; bright is positive."""
    y, x = (np.mgrid[0:_GRID, 0:_GRID] + 0.5) / _GRID - 0.5
    side = np.abs(x)
    drawing = 0.5 / (1 + np.exp(-(y - 0.22) / 0.05))  # abdomen
    drawing += 0.45 * np.exp(-((x / 0.09) ** 2))  # mediastinum and spine
    drawing -= np.exp(-(((side - 0.5) / 0.14) ** 2) - ((y + 0.5) / 0.12) ** 2)  # above shoulders
    drawing -= 0.35 * np.exp(-(((side - 0.5) / 0.08) ** 2))  # air at the sides
    drawing += 0.25 * np.exp(-(((side - 0.38) / 0.07) ** 2) - ((y + 0.08) / 0.25) ** 2)  # walls
    lean = (0.19 + 0.12 * (y - centre)) * width
    for hand in (-1, 1):
        across, along = (x - hand * lean) / (0.105 * width), (y - centre) / (0.22 * height)
        drawing -= 1.1 * np.exp(-(across**2) - along**2)  # lung
    return np.asarray(drawing.ravel())


def _weight() -> NDArray[np.float64]:
    """The rim counts less; the sum is 1."""
    y, x = (np.mgrid[0:_GRID, 0:_GRID] + 0.5) / _GRID - 0.5
    weight = np.exp(-((np.abs(x) / 0.47) ** 8) - (np.abs(y) / 0.5) ** 8).ravel()
    return np.asarray(weight / weight.sum())


def _drawings() -> NDArray[np.float64]:
    """All drawings, centred and scaled so that a weighted product is a correlation."""
    drawings = np.stack(
        [_drawing(w, h, c) for w in (0.85, 1.1) for h in (0.8, 1.1) for c in (-0.14, -0.04)]
    )
    drawings -= (drawings @ _WEIGHT)[:, None]
    return np.asarray(drawings / np.sqrt((drawings**2) @ _WEIGHT)[:, None])


_WEIGHT = _weight()
_DRAWINGS = _drawings()
