"""From stored values to grey: the pipeline of PS3.4 N.2, one step at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian

from dicomnode.errors import UndecodableImage
from dicomnode.imaging.pixels import grey8, picture
from dicomnode.imaging.profiles import PROFILES
from tests.unit.imaging.datasets import INSTANCE, LIMIT, instance, lut, ramp


def grey(ds: Dataset) -> Any:
    return grey8(ds, maximum_pixels=LIMIT)


def test_eight_bit_values_without_a_window_are_shown_as_they_are() -> None:
    pixels = ramp(8)
    assert np.array_equal(grey(instance(pixels)), pixels)


def test_monochrome1_is_inverted_once() -> None:
    pixels = ramp(8)
    assert np.array_equal(
        grey(instance(pixels, PhotometricInterpretation="MONOCHROME1")), 255 - pixels
    )


@pytest.mark.parametrize("shape", ["IDENTITY", "INVERSE"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_presentation_lut_shape_never_inverts_a_second_time(photometric: str, shape: str) -> None:
    plain = instance(ramp(8), PhotometricInterpretation=photometric)
    shaped = instance(ramp(8), PhotometricInterpretation=photometric, PresentationLUTShape=shape)
    assert np.array_equal(grey(shaped), grey(plain))


def test_the_window_is_applied_before_the_inversion() -> None:
    """Inverting the stored values first would put this low window outside the image."""
    pixels = np.array([[0, 50], [100, 4095]], np.uint16)
    shown = grey(
        instance(
            pixels,
            bits_stored=12,
            PhotometricInterpretation="MONOCHROME1",
            WindowCenter=50.5,
            WindowWidth=101,
        )
    )
    assert shown.tolist() == [[255, 128], [0, 0]]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        # C.11.2.1.2.1: ((x - (100 - 0.5)) / (100 - 1) + 0.5) * 255
        ("LINEAR", [0, 0, 128, 254, 255]),
        # C.11.2.1.3.2: ((x - 100) / 100 + 0.5) * 255
        ("LINEAR_EXACT", [0, 0, 128, 252, 255]),
        # C.11.2.1.3.1: 255 / (1 + exp(-4 (x - 100) / 100))
        ("SIGMOID", [5, 30, 128, 223, 250]),
    ],
)
def test_windows_follow_the_formulas_of_the_standard(function: str, expected: list[int]) -> None:
    pixels = np.array([[0, 50, 100, 149, 200]], np.uint8)
    shown = grey(instance(pixels, WindowCenter=100, WindowWidth=100, VOILUTFunction=function))
    assert np.abs(shown[0].astype(int) - expected).max() <= 1


def test_of_several_windows_the_first_is_taken() -> None:
    pixels = ramp(8)
    several = instance(pixels, WindowCenter=[60, 200], WindowWidth=[40, 10])
    one = instance(pixels, WindowCenter=60, WindowWidth=40)
    assert np.array_equal(grey(several), grey(one))


@pytest.mark.parametrize(("center", "width"), [(100, 0), (100, -5), (100, 0.5), ("", 100)])
def test_an_unusable_window_counts_as_none(center: Any, width: Any) -> None:
    pixels = ramp(8)
    assert np.array_equal(grey(instance(pixels, WindowCenter=center, WindowWidth=width)), pixels)


def test_rescale_slope_and_intercept_come_before_the_window() -> None:
    pixels = np.array([[0, 50, 100]], np.uint8)
    shown = grey(
        instance(pixels, RescaleSlope=2, RescaleIntercept=-100, WindowCenter=0.5, WindowWidth=201)
    )
    assert shown.tolist() == [[0, 128, 255]]


def test_a_modality_lut_is_looked_up_by_signed_values() -> None:
    """First value mapped -2: values below it take the first entry, above it the last."""
    pixels = np.array([[-5, -2, -1, 0, 7]], np.int16)
    table = lut(-2, 8, np.array([0, 100, 255]))
    ds = instance(
        pixels,
        ModalityLUTSequence=[table],
        WindowCenter=128,
        WindowWidth=256,
        VOILUTFunction="LINEAR",
    )
    assert grey(ds).tolist() == [[0, 0, 100, 255, 255]]


def test_a_voi_lut_goes_before_a_window() -> None:
    pixels = np.array([[9, 10, 11, 12]], np.uint8)
    table = lut(10, 16, np.array([65535, 32768, 0]))
    ds = instance(pixels, VOILUTSequence=[table], WindowCenter=1, WindowWidth=1)
    assert grey(ds).tolist() == [[255, 255, 128, 0]]


def test_sixteen_bits_without_a_window_are_spread_between_the_percentiles() -> None:
    """A few bright markers must not darken the anatomy."""
    pixels = np.linspace(1000, 3000, 10000).astype(np.uint16).reshape(100, 100)
    pixels[0, :10] = 65535
    shown = grey(instance(pixels))
    assert shown[50, 50] in range(120, 136)
    assert shown[0, 0] == 255


def test_padding_is_left_out_of_the_default_window_and_painted_black() -> None:
    pixels = np.linspace(1000, 3000, 10000).astype(np.uint16).reshape(100, 100)
    padded = pixels.copy()
    padded[:50] = 65000
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        shown = grey(
            instance(padded, PixelPaddingValue=65000, PhotometricInterpretation=photometric)
        )
        assert not shown[:50].any()
        assert np.ptp(shown[50:]) == 255


def test_a_padding_range_includes_both_ends() -> None:
    pixels = np.array([[10, 11, 12, 13]], np.uint8)
    shown = grey(instance(pixels, PixelPaddingValue=12, PixelPaddingRangeLimit=11))
    assert shown.tolist() == [[10, 0, 0, 13]]


def test_bits_above_bits_stored_are_not_part_of_the_value() -> None:
    clean = ramp(12)
    overlaid = clean | np.uint16(0xA000)
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    assert np.array_equal(
        grey(instance(overlaid, bits_stored=12, **window)),
        grey(instance(clean, bits_stored=12, **window)),
    )


def test_a_high_bit_above_bits_stored_shifts_the_value() -> None:
    clean = ramp(12)
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    shifted = instance((clean << 4) | np.uint16(0xF), bits_stored=12, **window)
    shifted.HighBit = 15
    assert np.array_equal(grey(shifted), grey(instance(clean, bits_stored=12, **window)))


def test_signed_values_are_sign_extended_from_bits_stored() -> None:
    pixels = np.array([[0xF800, 0x0000, 0x07FF]], np.uint16)  # -2048, 0, 2047 in 12 bits
    ds = instance(
        pixels & 0x0FFF, bits_stored=12, PixelRepresentation=1, WindowCenter=0, WindowWidth=4096
    )
    assert grey(ds).tolist() == [[0, 128, 255]]


def test_big_endian_words_are_swapped() -> None:
    pixels = ramp(12)
    window = {"WindowCenter": 2048, "WindowWidth": 4096, "bits_stored": 12}
    little = instance(pixels, **window)
    big = instance(pixels.astype(">u2"), transfer_syntax=ExplicitVRBigEndian, **window)
    assert np.array_equal(grey(big), grey(little))


def test_wide_words_give_the_same_grey_as_narrow_ones() -> None:
    pixels = ramp(16)
    window = {"WindowCenter": 30000, "WindowWidth": 50000, "bits_stored": 16}
    wide = instance(pixels.astype(np.uint32), **window)
    assert np.array_equal(grey(wide), grey(instance(pixels, **window)))


def test_one_bit_images_are_black_and_white() -> None:
    ds = instance(b"\x05\x00", shape=(2, 4), BitsAllocated=1, BitsStored=1, HighBit=0)
    assert grey(ds).tolist() == [[255, 0, 255, 0], [0, 0, 0, 0]]


def test_only_the_first_frame_is_read() -> None:
    frames = np.stack([np.full((4, 4), 7, np.uint8), np.full((4, 4), 9, np.uint8)])
    ds = instance(frames, shape=(4, 4), NumberOfFrames=2)
    assert (grey(ds) == 7).all()


@pytest.mark.parametrize("planar", [0, 1])
def test_rgb_becomes_its_luminance(planar: int) -> None:
    rgb = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [90, 90, 90]]], np.uint8)
    data = rgb.transpose(2, 0, 1) if planar else rgb
    ds = instance(
        np.ascontiguousarray(data),
        shape=(2, 2),
        SamplesPerPixel=3,
        PhotometricInterpretation="RGB",
        PlanarConfiguration=planar,
    )
    seen = picture(ds, maximum_pixels=LIMIT)
    assert seen.grey.tolist() == [[76, 150], [29, 90]]
    assert seen.coloured == 0.75


def test_ybr_becomes_its_luma() -> None:
    full = np.array([[[10, 128, 128], [200, 128, 128]]], np.uint8)
    ds = instance(full, shape=(1, 2), SamplesPerPixel=3, PhotometricInterpretation="YBR_FULL")
    assert grey(ds).tolist() == [[10, 200]]
    halved = np.array([10, 200, 128, 128], np.uint8)
    ds = instance(halved, shape=(1, 2), SamplesPerPixel=3, PhotometricInterpretation="YBR_FULL_422")
    assert grey(ds).tolist() == [[10, 200]]


def test_a_palette_is_looked_up_and_turned_to_grey() -> None:
    ds = instance(np.array([[0, 1, 2]], np.uint8), PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        setattr(ds, f"{colour}PaletteColorLookupTableDescriptor", [3, 0, 16])
        table = np.array([0, 0x8080, 0xFFFF], "<u2").tobytes()
        setattr(ds, f"{colour}PaletteColorLookupTableData", table)
    seen = picture(ds, maximum_pixels=LIMIT)
    assert seen.grey.tolist() == [[0, 128, 255]]
    assert seen.coloured == 0


def test_a_segmented_palette_cannot_ask_for_more_than_it_may_hold() -> None:
    ds = instance(np.array([[0, 1, 2]], np.uint8), PhotometricInterpretation="PALETTE COLOR")
    bomb = np.array([0, 1, 7, *([1, 65535, 7] * 1000)], "<u2").tobytes()
    for colour in ("Red", "Green", "Blue"):
        setattr(ds, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(ds, f"Segmented{colour}PaletteColorLookupTableData", bomb)
    with pytest.raises(UndecodableImage, match="more than 65536 entries"):
        grey(ds)


def test_messages_name_the_instance_and_the_transfer_syntax_and_no_patient() -> None:
    ds = instance(ramp(8), PatientName="Doe^Jane", PatientID="4711", Rows=99)
    with pytest.raises(UndecodableImage) as caught:
        grey(ds)
    message = str(caught.value)
    assert INSTANCE in message
    assert "'Explicit VR Little Endian'" in message
    assert "99 Rows" in message
    assert "Doe" not in message
    assert "4711" not in message


# ---------------------------------------------------------------------------- twins


@st.composite
def twins(draw: st.DrawFn) -> tuple[Dataset, Dataset]:
    """The same picture as MONOCHROME2, and as MONOCHROME1 with everything reversed."""
    bits = draw(st.integers(6, 16))
    signed = draw(st.booleans())
    seed = draw(st.integers(0, 2**32 - 1))
    low = -(1 << bits - 1) if signed else 0
    top = low + (1 << bits) - 1
    random = np.random.default_rng(seed)
    values = random.integers(low, top + 1, (16, 16), dtype=np.int64)
    how = draw(st.sampled_from(["none", "LINEAR", "LINEAR_EXACT", "SIGMOID", "voi", "modality"]))
    mirror = low + top
    first: dict[str, Any] = {}
    second: dict[str, Any] = {}
    if how in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        center = draw(st.integers(low, top))
        width = draw(st.integers(2, 1 << bits))
        # LINEAR is centred on c - 0.5, so its mirror image is centred one higher
        mirrored = mirror - center + (1 if how == "LINEAR" else 0)
        first = {"WindowCenter": center, "WindowWidth": width, "VOILUTFunction": how}
        second = {"WindowCenter": mirrored, "WindowWidth": width, "VOILUTFunction": how}
    elif how in ("voi", "modality"):
        size = min(1 << bits, 65535)
        entries = np.sort(random.integers(0, 65536, size))
        start = max(low, -32768)
        other_start = mirror - (start + size - 1)
        reversed_entries = 65535 - entries[::-1]
        name = "VOILUTSequence" if how == "voi" else "ModalityLUTSequence"
        first = {name: [lut(start, 16, entries)]}
        second = {name: [lut(other_start, 16, reversed_entries)]}
        if how == "modality":
            window = {"WindowCenter": 32768, "WindowWidth": 65536}
            first, second = {**first, **window}, {**second, **window}
    kind = f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}"
    return (
        instance(values.astype(kind), bits_stored=bits, **first),
        instance(
            (mirror - values).astype(kind),
            bits_stored=bits,
            PhotometricInterpretation="MONOCHROME1",
            **second,
        ),
    )


@given(twins())
@settings(max_examples=150, deadline=None)
def test_a_monochrome1_file_and_its_monochrome2_twin_give_the_same_tensor(
    pair: tuple[Dataset, Dataset],
) -> None:
    apply = PROFILES["unit-rgb-224/1"].apply
    one, other = (apply(grey(ds)).astype(int) for ds in pair)
    assert np.abs(one - other).max() <= 1
