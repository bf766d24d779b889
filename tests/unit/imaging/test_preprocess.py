"""Profiles, the display image and plain image files."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from dicomnode.errors import UndecodableImage
from dicomnode.findings import NotEvaluated, PreparedImage, Reason
from dicomnode.imaging.preprocess import (
    DISPLAY_SIDE,
    PROFILES,
    display_image,
    image_file_grey8,
    prepare,
    profile_named,
)
from dicomnode.testing.phantom_dicom import TRANSFER_SYNTAXES, phantom_dataset
from tests.unit.imaging.datasets import chest_header

UNIT = PROFILES["unit-rgb-224/1"]
PINNED = [4, 48, 102]
PINNED_299 = [1, 33, 105]


def image_file(grey: np.ndarray, kind: str, mode: str | None = None) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(grey)
    (image.convert(mode) if mode else image).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("side", [224, 299])
@pytest.mark.parametrize("shape", [(1, 1), (224, 224), (500, 300), (300, 2000)])
def test_any_picture_is_stretched_to_the_profile(shape: tuple[int, int], side: int) -> None:
    profile = PROFILES[f"unit-rgb-{side}/1"]
    tensor = profile.apply(np.full(shape, 77, np.uint8))
    assert tensor.shape == profile.shape == (side, side, 3)
    assert tensor.dtype == np.uint8
    assert (tensor == 77).all()


def test_the_channels_are_equal_and_the_resize_is_antialiased() -> None:
    """Every other row black: without antialiasing some profile rows would be 0 or 255."""
    stripes = np.zeros((2240, 2240), np.uint8)
    stripes[::2] = 255
    tensor = UNIT.apply(stripes)
    assert (tensor[..., 0] == tensor[..., 1]).all()
    assert (tensor[..., 0] == tensor[..., 2]).all()
    assert tensor[5:-5].min() > 110
    assert tensor[5:-5].max() < 145


@pytest.mark.parametrize(("side", "pinned"), [(224, PINNED), (299, PINNED_299)])
def test_a_profile_keeps_its_pixels(side: int, pinned: list[int]) -> None:
    """Models in the field were trained with these pixels: another step is another version."""
    profile = PROFILES[f"unit-rgb-{side}/1"]
    y, x = np.mgrid[0:448, 0:300]
    tensor = profile.apply(((x * 7 + y * 3) % 256).astype(np.uint8))
    assert tensor[[0, 100, side - 1], [0, 50, side - 1], 0].tolist() == pinned
    assert (profile.scale, profile.offset) == (1 / 255, 0.0)


def test_an_unknown_profile_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'nope/1' is unknown; this version has unit-rgb-224/1"):
        profile_named("nope/1")


def test_the_display_image_keeps_the_aspect_and_never_grows() -> None:
    assert display_image(np.zeros((3000, 1500), np.uint8)).shape == (DISPLAY_SIDE, 512)
    assert display_image(np.zeros((100, 50), np.uint8)).shape == (100, 50)
    assert display_image(np.zeros((30000, 1), np.uint8)).shape == (DISPLAY_SIDE, 1)


@pytest.mark.parametrize("syntax", TRANSFER_SYNTAXES)
def test_a_phantom_gives_the_same_input_in_every_transfer_syntax(syntax: str) -> None:
    bits = 8 if syntax.endswith("4.50") else 12
    size = {"rows": 256, "columns": 240}
    plain = prepare(phantom_dataset(2, True, bits_stored=bits, **size), UNIT, maximum_pixels=10**6)
    other = prepare(
        phantom_dataset(2, True, bits_stored=bits, transfer_syntax=syntax, **size),
        UNIT,
        maximum_pixels=10**6,
    )
    assert isinstance(plain, PreparedImage)
    assert isinstance(other, PreparedImage)
    assert np.abs(plain.tensor.astype(int) - other.tensor).max() <= (6 if bits == 8 else 0)


def test_an_instance_without_pixel_data_is_not_evaluated() -> None:
    outcome = prepare(chest_header(), UNIT, maximum_pixels=10**6)
    assert isinstance(outcome, NotEvaluated)
    assert outcome.reason is Reason.NO_PIXELS


@pytest.mark.parametrize("mode", [None, "RGB"])
def test_a_png_gives_the_grey_that_it_holds(mode: str | None) -> None:
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    data = image_file(grey, "PNG", mode)
    assert np.array_equal(image_file_grey8(data, maximum_pixels=10**6), grey)


def test_a_16_bit_png_is_scaled_by_its_full_range() -> None:
    data = image_file(np.array([[0, 32768, 65535]], np.uint16), "PNG")
    assert image_file_grey8(data, maximum_pixels=10**6).tolist() == [[0, 128, 255]]


def test_a_jpeg_stays_within_its_loss() -> None:
    y, x = np.mgrid[0:64, 0:64]
    grey = (x + y).astype(np.uint8)
    seen = image_file_grey8(image_file(grey, "JPEG"), maximum_pixels=10**6)
    assert np.abs(seen.astype(int) - grey).max() <= 6


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8\xff",
        image_file(np.zeros((9, 9), np.uint8), "PNG")[:-30],
        image_file(np.zeros((9, 9), np.uint8), "GIF"),
        image_file(np.zeros((2000, 2000), np.uint8), "PNG"),
    ],
)
def test_a_file_that_is_no_image_or_too_large_is_undecodable(data: bytes) -> None:
    with pytest.raises(UndecodableImage, match="the image file"):
        image_file_grey8(data, maximum_pixels=10**6)
