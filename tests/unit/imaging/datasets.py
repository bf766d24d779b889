"""Small instances, built value by value."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ComputedRadiographyImageStorage, ExplicitVRLittleEndian

LIMIT = 1_000_000
INSTANCE = "2.25.77"


def instance(
    pixels: NDArray[Any] | bytes,
    *,
    shape: tuple[int, ...] | None = None,
    transfer_syntax: str = ExplicitVRLittleEndian,
    bits_stored: int | None = None,
    **elements: Any,
) -> Dataset:
    """An instance with these words as uncompressed pixel data; `elements` override."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(transfer_syntax)
    ds.SOPClassUID = ComputedRadiographyImageStorage
    ds.SOPInstanceUID = INSTANCE
    ds.Modality = "CR"
    if isinstance(pixels, bytes):
        data, allocated, signed = pixels, 8, False
    else:
        shape = pixels.shape if shape is None else shape
        allocated, signed = 8 * pixels.dtype.itemsize, pixels.dtype.kind == "i"
        data = pixels.tobytes()
    assert shape is not None
    ds.Rows, ds.Columns = shape[0], shape[1]
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated = allocated
    ds.BitsStored = bits_stored or allocated
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(signed)
    ds.PixelData = data
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def lut(first: int, bits: int, entries: NDArray[Any]) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [entries.size % 65536, first, bits])
    item.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    return item


def chest_header(**elements: Any) -> Dataset:
    """The header of an acceptable frontal chest radiograph, without pixel data."""
    ds = Dataset()
    ds.SOPClassUID = ComputedRadiographyImageStorage
    ds.SOPInstanceUID = INSTANCE
    ds.Modality = "CR"
    ds.BodyPartExamined = "CHEST"
    ds.ViewPosition = "PA"
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = 2000, 1800
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def part10(ds: Dataset) -> bytes:
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def ramp(bits: int, *, signed: bool = False) -> NDArray[Any]:
    """Every stored value of `bits` bits once (at most 4096 of them), as a square."""
    count = min(1 << bits, 4096)
    low = -(1 << bits - 1) if signed else 0
    values = low + np.linspace(0, (1 << bits) - 1, count).round().astype(np.int64)
    side = int(count**0.5)
    kind = ("i" if signed else "u") + ("1" if bits <= 8 else "2")
    return values[: side * side].reshape(side, side).astype(kind)
