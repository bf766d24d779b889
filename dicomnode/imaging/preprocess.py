"""From an instance, or an image file, to the model's input: gate, decode, profile."""

from __future__ import annotations

import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pydicom.dataset import Dataset

from dicomnode.errors import UndecodableImage
from dicomnode.findings import NotEvaluated, PreparedImage, Reason
from dicomnode.imaging import gate, pixels
from dicomnode.imaging.profiles import PROFILES, PreprocessProfile, profile_named, resized

__all__ = [
    "DISPLAY_SIDE",
    "PROFILES",
    "PreprocessProfile",
    "display_image",
    "eligible_grey",
    "image_file_grey8",
    "prepare",
    "profile_named",
]

DISPLAY_SIDE = 1024
"""Longest side of `PreparedImage.display`, in pixels."""


def display_image(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same greys with the longer side at most `DISPLAY_SIDE`, aspect kept."""
    rows, columns = grey.shape
    ratio = DISPLAY_SIDE / max(rows, columns)
    if ratio >= 1:
        return np.ascontiguousarray(grey)
    return resized(grey, max(1, math.floor(columns * ratio)), max(1, math.floor(rows * ratio)))


def eligible_grey(ds: Dataset, *, maximum_pixels: int) -> NDArray[np.uint8] | NotEvaluated:
    """The decoded image if the gate lets it pass. Raises `UndecodableImage`.

    The header is judged before anything is decoded.
    """
    refusal = gate.judge_header(ds)
    if refusal is not None:
        return refusal
    if not gate.has_pixels(ds):
        return NotEvaluated(
            reason=Reason.NO_PIXELS, detail="The instance has no Pixel Data; expected an image."
        )
    picture = pixels.picture(ds, maximum_pixels=maximum_pixels)
    refusal = gate.judge_pixels(
        picture.grey, chest_is_named=gate.names_chest(ds), coloured=picture.coloured
    )
    return picture.grey if refusal is None else refusal


def prepare(
    ds: Dataset, profile: PreprocessProfile, *, maximum_pixels: int
) -> PreparedImage | NotEvaluated:
    """Gate, decode and preprocess in one call, the times left at 0: there is no clock here.

    Raises `UndecodableImage`.
    """
    grey = eligible_grey(ds, maximum_pixels=maximum_pixels)
    if isinstance(grey, NotEvaluated):
        return grey
    return PreparedImage(
        tensor=profile.apply(grey),
        display=display_image(grey),
        decode_seconds=0.0,
        preprocess_seconds=0.0,
    )


def image_file_grey8(data: bytes, *, maximum_pixels: int) -> NDArray[np.uint8]:
    """uint8 [rows, columns] of a JPEG or PNG file's bytes, as `grey8` gives it of DICOM.

    16-bit PNGs are scaled by their full range, colours become their luminance, the
    orientation that a camera noted is applied. Raises `UndecodableImage`.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            if image.width * image.height > maximum_pixels:
                raise UndecodableImage(
                    f"the image file has {image.width} x {image.height} pixels, "
                    f"more than {maximum_pixels}"
                )
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I") or upright.mode == "F":
                wide = np.asarray(upright, np.float64)
                return np.rint(np.clip(wide / 65535, 0, 1) * 255).astype(np.uint8)
            return np.array(upright.convert("RGB").convert("L"), np.uint8)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UndecodableImage(
            f"the image file cannot be decoded ({type(error).__name__}); expected JPEG or PNG"
        ) from error
