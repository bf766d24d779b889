"""What a header or a codestream promises is checked before memory is given to it."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from dicomnode.errors import NotAnInstance, UndecodableImage
from dicomnode.imaging import codestream
from dicomnode.imaging.pixels import grey8
from dicomnode.imaging.reading import read_instance
from dicomnode.testing.phantom_dicom import part10_bytes, phantom_dataset
from tests.unit.imaging.datasets import LIMIT, instance, part10, ramp

HUGE = 65535


def j2k_header(rows: int, columns: int, samples: int = 1, tile: int | None = None) -> bytes:
    tile = tile or max(rows, columns)
    siz = struct.pack(">HHIIIIIIIIH", 41, 0, columns, rows, 0, 0, tile, tile, 0, 0, samples)
    return b"\xff\x4f\xff\x51" + siz + b"\x0f\x01\x01" * samples + b"\xff\xd9"


def jpeg_header(rows: int, columns: int, marker: int = 0xC0) -> bytes:
    sof = struct.pack(">HBHHB", 11, 8, rows, columns, 1) + b"\x01\x11\x00"
    return (
        b"\xff\xd8\xff"
        + bytes([marker])
        + sof
        + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00\xff\xd9"
    )


def compressed(frame: bytes, transfer_syntax: str, **elements: Any) -> Dataset:
    ds = instance(b"", shape=(16, 16), transfer_syntax=transfer_syntax, **elements)
    ds.PixelData = encapsulate([frame])
    return ds


def refuses(ds: Dataset, match: str) -> None:
    """Refused with these words, and with less than a megabyte allocated on the way."""
    tracemalloc.start()
    try:
        with pytest.raises(UndecodableImage, match=match):
            grey8(ds, maximum_pixels=LIMIT)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_a_header_of_more_pixels_than_allowed_is_refused_unread() -> None:
    refuses(instance(b"\0" * 64, shape=(HUGE, HUGE)), f"{HUGE} Rows x {HUGE} Columns exceed")


@pytest.mark.parametrize(
    "elements",
    [
        {"Rows": 0},
        {"Rows": None},
        {"Columns": "sixteen"},
        {"SamplesPerPixel": 3},
        {"BitsAllocated": 48},
        {"BitsStored": 9},
        {"BitsStored": 0},
        {"HighBit": 8},
        {"HighBit": 3},
        {"PhotometricInterpretation": ""},
        {"PhotometricInterpretation": "HSV"},
        {"PixelRepresentation": 2},
        {"RescaleSlope": 0},
        {"PixelData": None},
    ],
)
def test_a_pixel_description_out_of_range_is_refused(elements: dict[str, Any]) -> None:
    ds = instance(ramp(8))
    for keyword, value in elements.items():
        try:
            setattr(ds, keyword, value)
        except (TypeError, ValueError):
            del ds[keyword]
    refuses(ds, "cannot decode 2.25.77")


def test_a_transfer_syntax_that_the_file_does_not_name_is_refused() -> None:
    ds = instance(ramp(8))
    del ds.file_meta.TransferSyntaxUID
    refuses(ds, "no valid transfer syntax")


@pytest.mark.parametrize("change", [-1, 17, 256])
def test_uncompressed_pixel_data_of_another_length_is_refused(change: int) -> None:
    data = bytes(max(0, 256 + change))
    refuses(instance(data, shape=(16, 16)), "Pixel Data has")


def test_padding_of_up_to_a_row_after_the_pixels_is_tolerated() -> None:
    assert grey8(instance(bytes(256 + 16), shape=(16, 16)), maximum_pixels=LIMIT).shape == (16, 16)


@pytest.mark.parametrize(
    ("frame", "transfer_syntax"),
    [
        (j2k_header(HUGE, HUGE), JPEG2000Lossless),
        (jpeg_header(HUGE, HUGE), JPEGBaseline8Bit),
        (jpeg_header(HUGE, HUGE, marker=0xF7), JPEGLSLossless),
        (j2k_header(16, 17), JPEG2000Lossless),
        (j2k_header(16, 16, samples=3), JPEG2000Lossless),
    ],
)
def test_a_codestream_that_contradicts_the_header_is_refused_before_decoding(
    frame: bytes, transfer_syntax: str
) -> None:
    refuses(compressed(frame, transfer_syntax), "the compressed frame holds")


def test_a_codestream_of_countless_tiles_is_refused() -> None:
    frame = j2k_header(1000, 1000, tile=1)
    refuses(compressed(frame, JPEG2000Lossless, Rows=1000, Columns=1000), "1000000 tiles")


@pytest.mark.parametrize("frame", [b"\0" * 10, b"\xff\xd8", b"\xff\x4f\xff\x51\0"])
def test_a_frame_without_a_frame_header_is_refused(frame: bytes) -> None:
    refuses(compressed(frame, JPEG2000Lossless), "frame|codestream")


@pytest.mark.parametrize(
    "fragments",
    [
        b"",
        b"\xfe\xff\x00\xe0\x00\x00\x00\x00",
        b"\xfe\xff\x00\xe0\x00\x00\x00\x00\xfe\xff\x00\xe0\xff\xff\xff\xff",
        bytes(64),
    ],
)
def test_fragments_that_form_no_frame_are_refused(fragments: bytes) -> None:
    ds = instance(fragments, shape=(16, 16), transfer_syntax=JPEG2000Lossless)
    refuses(ds, "frame|Pixel Data")


def rle(*segments: bytes, count: int | None = None) -> bytes:
    offsets, position = [], 64
    for segment in segments:
        offsets.append(position)
        position += len(segment)
    padded = [*offsets, *[0] * (15 - len(offsets))]
    return struct.pack("<16I", len(segments) if count is None else count, *padded) + b"".join(
        segments
    )


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (b"\0" * 20, "fewer than its 64-byte header"),
        (rle(b"\x81\0" * 4, count=15), "declares 15 segments"),
        (rle(b"\x81\0" * 2, b"\x81\0" * 2), "declares 2 segments"),
        (rle(b"\x81\0"), "cannot hold"),
        (rle(b"\x81\0" * 1000), "expands beyond"),
    ],
)
def test_an_rle_frame_that_does_not_fit_its_image_is_refused(frame: bytes, why: str) -> None:
    refuses(compressed(frame, RLELossless), why)


def test_a_sequential_scan_with_the_wrong_spectral_end_is_mended() -> None:
    """Some modalities write Se = 0 in JPEG Extended; strict decoders refuse it."""
    mended = jpeg_header(16, 16)
    broken = mended.replace(b"\x00\x3f\x00\xff\xd9", b"\x00\x00\x00\xff\xd9")
    assert broken != mended
    assert codestream.with_sequential_scan(broken) == mended
    progressive = jpeg_header(16, 16, marker=0xC2).replace(b"\x00\x3f", b"\x00\x00")
    assert codestream.with_sequential_scan(progressive) == progressive


@pytest.mark.parametrize(
    "table",
    [
        {"LUTDescriptor": [0, 0, 16]},
        {"LUTDescriptor": [65535, 0, 16]},
        {"LUTDescriptor": [4, 0, 32]},
        {"LUTDescriptor": [4, 0]},
        {"LUTData": b""},
    ],
)
@pytest.mark.parametrize("name", ["ModalityLUTSequence", "VOILUTSequence"])
def test_a_lut_that_does_not_hold_what_it_declares_is_refused(
    name: str, table: dict[str, Any]
) -> None:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", table.get("LUTDescriptor", [4, 0, 16]))
    item.add_new("LUTData", "OW", table.get("LUTData", bytes(8)))
    refuses(instance(ramp(8), **{name: [item]}), "LUT")


# --------------------------------------------------------------------------- reading


def deflated(body: bytes) -> bytes:
    ds = phantom_dataset(
        1, False, transfer_syntax=DeflatedExplicitVRLittleEndian, rows=64, columns=64
    )
    whole = part10_bytes(ds)
    length = struct.unpack_from("<I", whole, 140)[0]
    return whole[: 144 + length] + body


def squeezed(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


def test_a_deflated_data_set_is_inflated_to_its_bound_and_no_further() -> None:
    bomb = deflated(squeezed(bytes(50_000_000)))
    assert len(bomb) < 100_000
    tracemalloc.start()
    try:
        with pytest.raises(NotAnInstance, match="inflates beyond 1000000 bytes"):
            read_instance(io.BytesIO(bomb), maximum_inflated_bytes=1_000_000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5_000_000


@pytest.mark.parametrize("body", [b"", b"\xff\xff\xff", squeezed(bytes(1000))[:-3]])
def test_a_deflated_data_set_that_is_corrupt_or_cut_is_no_instance(body: bytes) -> None:
    with pytest.raises(NotAnInstance, match="deflated"):
        read_instance(io.BytesIO(deflated(body)))


def test_a_deflated_instance_reads_as_its_uncompressed_twin() -> None:
    plain, small = (
        read_instance(
            io.BytesIO(part10_bytes(phantom_dataset(1, False, rows=64, columns=64, **how)))
        )
        for how in ({}, {"transfer_syntax": DeflatedExplicitVRLittleEndian})
    )
    assert small.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian
    assert np.array_equal(grey8(small, maximum_pixels=LIMIT), grey8(plain, maximum_pixels=LIMIT))


@pytest.mark.parametrize("data", [b"", b"DICM", bytes(128) + b"DICM", bytes(500)])
def test_bytes_that_are_no_part_10_file_are_no_instance(data: bytes) -> None:
    with pytest.raises(NotAnInstance):
        read_instance(io.BytesIO(data))


def test_a_data_set_without_sop_class_is_no_instance() -> None:
    ds = instance(ramp(8))
    data = part10(ds)
    sop_class = ds.SOPClassUID.encode()
    position = data.rindex(sop_class)
    cut = data[: position - 8] + data[position + len(sop_class) + len(sop_class) % 2 :]
    with pytest.raises(NotAnInstance, match="SOP Class UID"):
        read_instance(io.BytesIO(cut))


def test_sequences_nested_beyond_reason_are_refused_and_not_followed() -> None:
    item = Dataset()
    item.SOPClassUID = "1.2"
    data = part10(instance(ramp(8)))
    nested = struct.pack("<HH2sHI", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF
    )
    position = data.index(struct.pack("<HH2s", 0x7FE0, 0x0010, b"OB"))
    with pytest.raises(NotAnInstance, match=r"cannot be parsed|SOP Class"):
        read_instance(io.BytesIO(data[:position] + nested * 5000))
