"""The pixel description of a header, checked before anything is allocated for it.

Sources: PS3.3 C.7.6.3 (Image Pixel Module), PS3.5 section 8 (encoding of pixel data).
"""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRBigEndian, ImplicitVRLittleEndian

from dicomnode.imaging.elements import integer, text, transfer_syntax, undecodable, value

MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT")
_PHOTOMETRIC = (*MONOCHROME, "PALETTE COLOR", *COLOUR)
_FRAMES_LIMIT = 1_000_000


@dataclass(frozen=True, kw_only=True)
class PixelDescription:
    """How the pixel data is laid out. Every field is within the standard's range."""

    rows: int
    columns: int
    samples: int
    """Per pixel: 1, or 3 for colour."""
    photometric_interpretation: str
    planar: bool
    """Colour by plane (Planar Configuration 1)."""
    frames: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    transfer_syntax: UID
    big_endian: bool

    @property
    def pixels(self) -> int:
        """Of one frame."""
        return self.rows * self.columns

    @property
    def frame_bytes(self) -> int:
        """Of one frame, uncompressed, as PS3.5 8.1 and C.7.6.3.1.2 lay it out."""
        samples = 2 if self.photometric_interpretation == "YBR_FULL_422" else self.samples
        return (self.pixels * samples * self.bits_allocated + 7) // 8

    @property
    def stored_range(self) -> tuple[int, int]:
        """Least and greatest stored value that Bits Stored allows."""
        if self.signed:
            return -(1 << self.bits_stored - 1), (1 << self.bits_stored - 1) - 1
        return 0, (1 << self.bits_stored) - 1


def describe(ds: Dataset, *, maximum_pixels: int) -> PixelDescription:
    """Read and check the Image Pixel Module.

    Raises `UndecodableImage` when an element is missing or out of range, when one frame
    has more than `maximum_pixels` pixels, when there is no pixel data, or, for
    uncompressed pixel data, when its length is not what the header declares. More than
    the declared length is accepted up to a row: some devices pad.
    """
    syntax = transfer_syntax(ds)
    if not syntax or not syntax.is_valid:
        raise undecodable(ds, "(0002,0010) Transfer Syntax UID is missing or invalid")
    rows = _within(ds, "Rows", 1, 65535)
    columns = _within(ds, "Columns", 1, 65535)
    if rows * columns > maximum_pixels:
        raise undecodable(
            ds,
            f"{rows} Rows x {columns} Columns exceed {maximum_pixels} pixels; "
            "raise worker.maximum_pixels if such images are expected",
        )
    photometric = text(ds, "PhotometricInterpretation").upper()
    if photometric not in _PHOTOMETRIC:
        raise undecodable(
            ds,
            "(0028,0004) Photometric Interpretation is missing or unknown, expected one of "
            + ", ".join(_PHOTOMETRIC),
        )
    expected_samples = 3 if photometric in COLOUR else 1
    samples = _within(ds, "SamplesPerPixel", 1, 4, default=expected_samples)
    if samples != expected_samples:
        raise undecodable(
            ds, f"{photometric} needs Samples per Pixel {expected_samples}, found {samples}"
        )
    allocated = _within(ds, "BitsAllocated", 1, 64)
    if allocated not in (1, 8, 16, 32, 64):
        raise undecodable(ds, f"Bits Allocated is {allocated}, expected 1, 8, 16, 32 or 64")
    if photometric.startswith("YBR") and allocated != 8:
        raise undecodable(ds, f"{photometric} needs 8 Bits Allocated, found {allocated}")
    if photometric == "YBR_FULL_422" and columns % 2 and not is_encapsulated(syntax):
        raise undecodable(ds, f"YBR_FULL_422 needs an even number of Columns, found {columns}")
    stored = _within(ds, "BitsStored", 1, allocated, default=allocated)
    high_bit = _within(ds, "HighBit", 0, allocated - 1, default=stored - 1)
    if high_bit < stored - 1:
        raise undecodable(ds, f"High Bit {high_bit} leaves no room for {stored} Bits Stored")
    description = PixelDescription(
        rows=rows,
        columns=columns,
        samples=samples,
        photometric_interpretation=photometric,
        planar=samples > 1 and _within(ds, "PlanarConfiguration", 0, 1, default=0) == 1,
        frames=max(1, _within(ds, "NumberOfFrames", 0, _FRAMES_LIMIT, default=1)),
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high_bit,
        signed=_within(ds, "PixelRepresentation", 0, 1, default=0) == 1,
        transfer_syntax=syntax,
        big_endian=syntax == ExplicitVRBigEndian,
    )
    _check_length(ds, description)
    return description


def _check_length(ds: Dataset, description: PixelDescription) -> None:
    data = value(ds, "PixelData")
    if not isinstance(data, bytes | bytearray):
        raise undecodable(ds, "there is no (7FE0,0010) Pixel Data")
    if is_encapsulated(description.transfer_syntax):
        return
    declared = description.frame_bytes * description.frames
    row = max(2, description.frame_bytes // description.rows)
    if not declared <= len(data) < declared + row + 1:
        raise undecodable(
            ds,
            f"Pixel Data has {len(data)} bytes, but {description.rows} Rows x "
            f"{description.columns} Columns x {description.samples} samples x "
            f"{description.bits_allocated} bits x {description.frames} frames need {declared}",
        )


def is_encapsulated(syntax: UID) -> bool:
    """Whether pixel data is a sequence of fragments (PS3.5 A.4)."""
    if syntax == ImplicitVRLittleEndian or syntax.is_private:
        return False
    return syntax.is_encapsulated if syntax.is_transfer_syntax else True


def _within(ds: Dataset, keyword: str, low: int, high: int, *, default: int | None = None) -> int:
    found = integer(ds, keyword)
    if found is None:
        if default is not None and value(ds, keyword) is None:
            return default
        raise undecodable(ds, f"{keyword} is missing or not an integer")
    if not low <= found <= high:
        raise undecodable(ds, f"{keyword} is {found}, expected {low} to {high}")
    return found
