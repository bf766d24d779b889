"""Is it the same exposure? One film is laid over another, and their detail compared.

Two films of one patient, or of two slim ones in the same pose, look much alike at the size
of a thumbnail. Laid over each other by the best affine map, the same exposure agrees down to
its ribs and vessels, however it was cropped, turned a little, stretched or windowed; another
exposure does not, since nobody breathes in twice the same way.

The map is found by Gauss-Newton steps on the correlation of the two pictures, from coarse to
fine (Evangelidis and Psarakis 2008, "ECC").
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from trainer.audit.fingerprints import THUMBNAIL_SIDE, reduced

Grey = NDArray[np.uint8]
Plane = NDArray[np.float64]

SAME: Final = 0.905
"""Agreement from which on two films are one exposure. On 368 radiographs: copies that were
cropped, turned, stretched or windowed reach 0.91 and more (a tenth of those that got a border
less), two films of one patient at most 0.83, strangers 0.60; of 600 phantoms, which all
have the same drawn anatomy, the two likest 0.902."""
MINIMUM_OVERLAP: Final = 0.5
"""Of the film, for its correlation to mean anything."""

_LEVELS: Final = ((32, 1.5, 20), (64, 2.0, 12), (THUMBNAIL_SIDE, 3.0, 8))
"""Side, width of the blur that is taken away, steps."""
_HOPELESS: Final = 0.55
"""Agreement at a coarse level below which the finer ones are not tried."""
_UNDECIDED: Final = 0.75
_FIRST_STEPS: Final = 6
"""From every start; the two best go on."""
_STILL: Final = 1e-3
"""A step that changes the map by less is the last."""
_ZOOMS: Final = (1.0, 0.88, 1.14)
_TURNS: Final = (0.0, -0.1, 0.1)
"""Radians, about six degrees."""


def agreement(first: Grey, second: Grey) -> float:
    """Correlation of the detail of two thumbnails, uint8 [96, 96], laid over each other.

    -1..1; 0 when they cannot be laid over each other.
    """
    found = _laid_over(first, second)
    # which of the two is moved matters a little; it decides only when it is close
    close = _UNDECIDED <= found < SAME
    return max(found, _laid_over(second, first)) if close else found


def _laid_over(first: Grey, second: Grey) -> float:
    side, width, steps = _LEVELS[0]
    one, other = (_detail(reduced(film, side), width) for film in (first, second))
    starts = [_start(zoom, turn) for zoom in _ZOOMS for turn in _TURNS]
    tried = sorted(
        (_aligned(one, other, start, _FIRST_STEPS) for start in starts),
        key=lambda found: -found[0],
    )
    value, affine = max(
        (_aligned(one, other, start, steps) for _, start in tried[:2]), key=lambda found: found[0]
    )
    for side, width, steps in _LEVELS[1:]:
        if value < _HOPELESS:
            break
        one, other = (_detail(reduced(film, side), width) for film in (first, second))
        value, affine = _aligned(one, other, affine, steps)
    return value


def _start(zoom: float, turn: float) -> Plane:
    """[2, 3] in coordinates -1..1, so that it fits every level."""
    cosine, sine = zoom * np.cos(turn), zoom * np.sin(turn)
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0]])


def _aligned(film: Plane, laid: Plane, affine: Plane, steps: int) -> tuple[float, Plane]:
    """The best correlation on the way, and the map that had it."""
    side = film.shape[0]
    y, x = (np.mgrid[0:side, 0:side] + 0.5) * (2 / side) - 1
    ones = np.ones_like(x)
    down, across = (gradient * (side / 2) for gradient in np.gradient(laid))
    best = (0.0, affine)
    for _ in range(steps):
        at_x = affine[0, 0] * x + affine[0, 1] * y + affine[0, 2]
        at_y = affine[1, 0] * x + affine[1, 1] * y + affine[1, 2]
        inside = (np.abs(at_x) < 1 - 2 / side) & (np.abs(at_y) < 1 - 2 / side)
        if inside.mean() < MINIMUM_OVERLAP:
            break
        moved, slope_x, slope_y = (
            _sampled(plane, at_x[inside], at_y[inside]) for plane in (laid, across, down)
        )
        target = _centred(film[inside])
        moved = _centred(moved)
        value = float(target @ moved)
        if value > best[0]:
            best = (value, affine.copy())
        basis = np.stack([plane[inside] for plane in (x, y, ones)], axis=1)
        jacobian = np.concatenate((basis * slope_x[:, None], basis * slope_y[:, None]), axis=1)
        jacobian -= jacobian.mean(axis=0)
        jacobian /= max(1e-9, _length(_sampled(laid, at_x[inside], at_y[inside])))
        jacobian -= moved[:, None] * (moved @ jacobian)
        normal = jacobian.T @ jacobian + 1e-9 * np.eye(6)
        error = target / max(value, 0.1) - moved
        change = np.linalg.solve(normal, jacobian.T @ error)
        if np.abs(change).max() < _STILL:
            break
        affine = affine + np.clip(change, -0.1, 0.1).reshape(2, 3)
    return best


def _sampled(plane: Plane, at_x: Plane, at_y: Plane) -> Plane:
    """Bilinear, at coordinates -1..1."""
    side = plane.shape[0]
    column, row = ((at + 1) * (side / 2) - 0.5 for at in (at_x, at_y))
    left = np.clip(column.astype(int), 0, side - 2)
    above = np.clip(row.astype(int), 0, side - 2)
    right, below = column - left, row - above
    upper = plane[above, left] * (1 - right) + plane[above, left + 1] * right
    lower = plane[above + 1, left] * (1 - right) + plane[above + 1, left + 1] * right
    return np.asarray(upper * (1 - below) + lower * below)


def _detail(film: Grey, width: float) -> Plane:
    """Local contrast: less its surroundings, by their spread."""
    plane = film.astype(np.float64)
    blur = _blur(film.shape[0], width)
    less = plane - blur @ plane @ blur.T
    spread = np.sqrt(blur @ (less**2) @ blur.T)
    return np.asarray(less / (spread + 2.0))


def _blur(side: int, width: float) -> Plane:
    place = np.arange(side)
    weight = np.exp(-((place[:, None] - place[None, :]) ** 2) / (2 * width**2))
    return np.asarray(weight / weight.sum(axis=1, keepdims=True))


def _length(values: Plane) -> float:
    return float(np.linalg.norm(values - values.mean()))


def _centred(values: Plane) -> Plane:
    return (values - values.mean()) / max(1e-9, _length(values))
