"""Reading the header of a Part 10 file that a stranger wrote.

What is held in memory is bounded whatever the file says: bytes read, elements, the size
of one value, and what a deflated data set inflates to (PS3.5 A.5).
"""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.filereader import read_dataset, read_partial, read_preamble
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian

from dicomnode.errors import NotAnInstance, NotInStore, StorageUnavailable

MAXIMUM_HEADER_BYTES = 16 * 1024 * 1024
"""Bytes of a file that are read for its header; longer values are skipped, not read."""

MAXIMUM_READS = 250_000
"""Read calls: an element takes two or three, so this bounds the number of elements."""

MAXIMUM_VALUE_BYTES = 1024 * 1024
"""A longer value (look-up tables, icons, encapsulated documents) is left out."""

_PIXELS = (0x7FE00008, 0x7FE00009, 0x7FE00010)


class _TooLong(Exception):
    """The header goes on beyond its bounds."""


class _Bounded:
    """A file that refuses to give more than `MAXIMUM_HEADER_BYTES` in all."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._bytes_left = MAXIMUM_HEADER_BYTES
        self._reads_left = MAXIMUM_READS
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int = -1) -> bytes:
        if self._reads_left == 0 or size > self._bytes_left:
            raise _TooLong
        self._reads_left -= 1
        data = self._file.read(self._bytes_left + 1 if size < 0 else size)
        self._bytes_left -= len(data)
        if self._bytes_left < 0:
            raise _TooLong
        return data


def read_header(path: Path) -> Dataset:
    """The data set of a Part 10 file up to its pixel data, with its `file_meta`.

    Top-level values longer than `MAXIMUM_VALUE_BYTES` are left out. Values are decoded when
    they are first used, as always with pydicom. Raises `NotAnInstance`, `NotInStore`
    (no such file), `StorageUnavailable`.
    """
    try:
        with path.open("rb") as file:
            return _read(file, path.name)
    except FileNotFoundError as error:
        raise NotInStore(f"no file {path.name} in the store; was it removed by hand?") from error
    except OSError as error:
        raise StorageUnavailable(f"cannot read {path.name}: {error.strerror}") from error


def _read(file: BinaryIO, name: str) -> Dataset:
    try:
        ds = _parse(file)
        _leave_out_long_values(ds)
    except _TooLong as error:
        raise NotAnInstance(
            f"{name} has a header of more than {MAXIMUM_HEADER_BYTES} bytes or about "
            f"{MAXIMUM_READS // 2} elements before its pixel data; this is no radiograph"
        ) from error
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        # pydicom's own text may repeat values of the header
        raise NotAnInstance(
            f"{name} cannot be read as a DICOM file (PS3.10): {type(error).__name__}"
        ) from error
    if not len(ds):
        raise NotAnInstance(f"{name} holds no data elements before its pixel data")
    return ds


def _parse(file: BinaryIO) -> FileDataset:
    bounded = cast(BinaryIO, _Bounded(file))
    read_preamble(bounded, force=False)
    meta = read_dataset(bounded, False, True, stop_when=lambda tag, _vr, _length: tag >> 16 != 2)
    syntax = meta.get("TransferSyntaxUID")
    if syntax == DeflatedExplicitVRLittleEndian:
        return _parse_deflated(file, meta)
    file.seek(0)
    return read_partial(cast(BinaryIO, _Bounded(file)), _at_pixels, defer_size=MAXIMUM_VALUE_BYTES)


def _parse_deflated(file: BinaryIO, meta: Dataset) -> FileDataset:
    """Inflate the beginning only; pixel data may inflate to anything."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = bytearray()
    while len(inflated) < MAXIMUM_HEADER_BYTES and not inflater.eof:
        deflated = inflater.unconsumed_tail or file.read(65536)
        if not deflated:
            break
        inflated += inflater.decompress(deflated, MAXIMUM_HEADER_BYTES - len(inflated))
    ended = inflater.eof
    buffer = io.BytesIO(inflated)
    bounded = cast(BinaryIO, _Bounded(buffer))
    ds = read_dataset(bounded, False, True, stop_when=_at_pixels, defer_size=MAXIMUM_VALUE_BYTES)
    if not ended and buffer.tell() >= len(inflated) >= MAXIMUM_HEADER_BYTES:
        raise _TooLong
    header = FileDataset(io.BytesIO(), ds, file_meta=FileMetaDataset(meta), is_implicit_VR=False)
    header.set_original_encoding(False, True, ds._character_set)
    return header


def _at_pixels(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag in _PIXELS


def _leave_out_long_values(ds: Dataset) -> None:
    for tag in list(ds.keys()):
        element: Any = ds.get_item(BaseTag(tag), keep_deferred=True)
        if isinstance(element, RawDataElement) and element.value is None and element.length:
            del ds[tag]
