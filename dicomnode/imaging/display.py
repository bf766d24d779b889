"""The 8-bit picture that a heatmap is drawn on, as PNG bytes and back."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def png_bytes(grey: NDArray[np.uint8]) -> bytes:
    """`grey` uint8 [rows, columns] as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def png_pixels(data: bytes) -> NDArray[np.uint8]:
    """The inverse of `png_bytes`: uint8 [rows, columns]."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        return np.asarray(image.convert("L"), dtype=np.uint8)
