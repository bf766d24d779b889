"""From the bytes of a Part 10 file to a data set.

Strict about what makes a file a DICOM instance (PS3.10 7.1), tolerant of the rest: later
steps ask for the elements that they need and say which one is wrong.
"""

from __future__ import annotations

import errno
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian

from dicomnode.errors import NotAnInstance
from dicomnode.imaging.elements import value

_PREFIX_END = 132
_CHUNK = 1 << 20
_STORAGE_FAILURES = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENXIO, errno.ENODEV}
"""What a file system says when it fails; a malformed length gives EINVAL or none."""

MAXIMUM_INFLATED_BYTES = 512 * 1024 * 1024
"""Default bound on what a deflated data set may grow to."""


def read_instance(
    stream: BinaryIO, *, maximum_inflated_bytes: int = MAXIMUM_INFLATED_BYTES
) -> Dataset:
    """Parse a Part 10 stream, positioned at its start and seekable.

    A deflated data set (PS3.5 A.5) is inflated up to `maximum_inflated_bytes` and no
    further; the result keeps its original transfer syntax in `file_meta`.

    Raises `NotAnInstance` when the stream is no DICOM file, cannot be parsed, inflates
    beyond the bound, or names no SOP class; OSError when the stream itself cannot be read.
    """
    if stream.read(_PREFIX_END)[-4:] != b"DICM":
        raise NotAnInstance("not a DICOM file: no 'DICM' prefix at byte 128 (PS3.10 7.1)")
    with _parsing():
        meta = FileMetaDataset(read_dataset(stream, False, True, stop_when=_after_file_meta))
    if value(meta, "TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        data = io.BytesIO(_inflate(stream, maximum_inflated_bytes))
        with _parsing():
            ds = read_dataset(data, False, True)
        ds.file_meta = meta
        ds.set_original_encoding(False, True)
    else:
        stream.seek(0)
        with _parsing():
            ds = dcmread(stream)
    if not value(ds, "SOPClassUID"):
        raise NotAnInstance(
            "the data set has no (0008,0016) SOP Class UID; send a composite SOP instance"
        )
    return ds


def _after_file_meta(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag >> 16 != 2


@contextmanager
def _parsing() -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _STORAGE_FAILURES:
            raise
        raise NotAnInstance(
            f"the data set cannot be parsed ({type(error).__name__}); "
            "check the file with dcmdump or send it again"
        ) from error


def _inflate(stream: BinaryIO, maximum_bytes: int) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = bytearray()
    try:
        while not inflater.eof and (deflated := inflater.unconsumed_tail or stream.read(_CHUNK)):
            inflated += inflater.decompress(deflated, maximum_bytes + 1 - len(inflated))
            if len(inflated) > maximum_bytes:
                raise NotAnInstance(
                    f"the deflated data set inflates beyond {maximum_bytes} bytes; "
                    "send it in another transfer syntax"
                )
    except zlib.error as error:
        raise NotAnInstance("the deflated data set is corrupt (PS3.5 A.5)") from error
    if not inflater.eof:
        raise NotAnInstance("the deflated data set ends early (PS3.5 A.5); send it again")
    return bytes(inflated)
