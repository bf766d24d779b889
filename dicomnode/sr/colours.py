"""The colours of a heatmap: a ramp of even steps for the eye.

Five anchors in OKLab (Ottosson 2020), a space in which equal distances look equal, with
lightness that only rises: dark violet, purple, red, orange, pale yellow. It reads the
same in grey, and for those who confuse red and green.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ANCHORS = np.array(
    [
        # lightness, green-red, blue-yellow
        [0.22, 0.04, -0.11],
        [0.40, 0.13, -0.11],
        [0.58, 0.19, 0.04],
        [0.76, 0.10, 0.14],
        [0.95, -0.03, 0.13],
    ]
)
_TO_CONE = np.array(
    [
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ]
)
_TO_LINEAR_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def ramp() -> NDArray[np.uint8]:
    """256 colours, uint8 [256, 3], from 0 to 1."""
    positions = np.linspace(0, len(_ANCHORS) - 1, 256)
    lab = np.stack(
        [np.interp(positions, np.arange(len(_ANCHORS)), channel) for channel in _ANCHORS.T],
        axis=1,
    )
    linear = np.clip((lab @ _TO_CONE.T) ** 3 @ _TO_LINEAR_RGB.T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(encoded * 255).astype(np.uint8)
