"""The first frame of an instance as stored values.

Uncompressed frames are viewed in place (no copy when the words are aligned). Compressed
ones go to the pylibjpeg family through pydicom's decoders, after their own frame header
agreed with the data set's.

Sources: PS3.5 8.1 (uncompressed layout), 8.2 and A.4 (encapsulated), PS3.3 C.7.6.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import encaps
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import convert_color_space
from pydicom.uid import JPEGExtended12Bit, RLELossless

from dicomnode.imaging import codestream
from dicomnode.imaging.elements import undecodable, value
from dicomnode.imaging.limits import PixelDescription, is_encapsulated

_RETIRED_JPEG = {f"1.2.840.10008.1.2.4.{process}" for process in (52, 53, 54, 55)}
"""Spectral selection and full progression: retired, and within what libjpeg decodes."""

Words = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True, kw_only=True)
class StoredFrame:
    """One frame as it is stored.

    `words` is [rows, columns], or [rows, columns, 3] RGB, of unsigned 8 to 64 bit. A word
    holds the stored value in `bits` bits above `shift` others; the rest is not part of it
    (old devices put overlays there).
    """

    words: Words
    bits: int
    shift: int = 0
    signed: bool = False

    def stored(self, words: Words) -> NDArray[np.int64]:
        """The stored values of any `words` of this frame."""
        values = (words.astype(np.uint64) >> np.uint64(self.shift)) & np.uint64(
            (1 << self.bits) - 1
        )
        if self.signed:
            beyond = np.uint64(64 - self.bits)
            return (values << beyond).view(np.int64) >> np.int64(beyond)
        if self.bits == 64:
            values = np.minimum(values, np.uint64(np.iinfo(np.int64).max))
        return values.astype(np.int64)


def first_frame(ds: Dataset, description: PixelDescription) -> StoredFrame:
    """Decode the first frame.

    Raises `UndecodableImage` when there is no decoder for the transfer syntax, when the
    compressed frame contradicts the header, or when the decoder fails.
    """
    if is_encapsulated(description.transfer_syntax):
        return _compressed(ds, description)
    return _uncompressed(ds, description)


def _uncompressed(ds: Dataset, description: PixelDescription) -> StoredFrame:
    data = memoryview(value(ds, "PixelData"))
    rows, columns = description.rows, description.columns
    bits, shift = description.bits_stored, description.high_bit + 1 - description.bits_stored
    if description.bits_allocated == 1:
        packed = np.frombuffer(data, np.uint8, (description.pixels + 7) // 8)
        unpacked = np.unpackbits(packed, count=description.pixels, bitorder="little")
        return StoredFrame(words=unpacked.reshape(rows, columns), bits=1)
    size = description.bits_allocated // 8
    if size == 1 and description.big_endian and _is_word_string(ds):
        # 8-bit samples in 16-bit words: in big endian each pair arrives swapped
        data = memoryview(np.frombuffer(data, "<u2", len(data) // 2).byteswap().tobytes())
    count = description.frame_bytes // size
    flat = np.frombuffer(data, f"{'>' if description.big_endian else '<'}u{size}", count)
    if description.big_endian and size > 1:
        flat = flat.astype(flat.dtype.newbyteorder("="))
    words = _shaped(flat, description)
    return StoredFrame(words=words, bits=bits, shift=shift, signed=description.signed)


def _shaped(flat: Words, description: PixelDescription) -> Words:
    """One sample per pixel as it is, colour as RGB."""
    rows, columns = description.rows, description.columns
    if description.samples == 1:
        return flat.reshape(rows, columns)
    if description.photometric_interpretation == "YBR_FULL_422":
        # C.7.6.3.1.2: Y1 Y2 CB CR for each two pixels
        quads = flat.reshape(-1, 4)
        chroma = np.repeat(quads[:, 2:], 2, axis=0)
        luma = quads[:, :2].reshape(-1, 1)
        image = np.concatenate([luma, chroma], axis=1).reshape(rows, columns, 3)
    elif description.planar:
        image = flat.reshape(3, rows, columns).transpose(1, 2, 0)
    else:
        image = flat.reshape(rows, columns, 3)
    if description.photometric_interpretation == "RGB":
        return image
    return convert_color_space(image, "YBR_FULL", "RGB")


def _is_word_string(ds: Dataset) -> bool:
    return bool(ds["PixelData"].VR == "OW")


def _compressed(ds: Dataset, description: PixelDescription) -> StoredFrame:
    syntax = description.transfer_syntax
    try:
        decoder = get_decoder(JPEGExtended12Bit if syntax in _RETIRED_JPEG else syntax)
    except NotImplementedError as error:
        raise undecodable(
            ds, "no decoder for this transfer syntax; take it out of the accepted ones"
        ) from error
    frame = _first_encapsulated(ds, description)
    rle = syntax == RLELossless
    if rle:
        container = description.bits_allocated
    else:
        frame = codestream.with_sequential_scan(frame)
        container = 8 if _checked_precision(ds, description, frame) <= 8 else 16
    try:
        if rle:
            codestream.check_rle(
                frame,
                segments=description.samples * ((container + 7) // 8),
                segment_bytes=description.pixels,
            )
        decoded, _ = decoder.as_array(
            encaps.encapsulate([frame], has_bot=False),
            index=0,
            **_options(description, container),
        )
    except MemoryError:
        raise
    except Exception as error:
        raise undecodable(ds, _why(error)) from error
    expected = (description.rows, description.columns, *((3,) * (description.samples > 1)))
    if decoded.shape != expected or decoded.dtype.kind not in "iu":
        raise undecodable(ds, f"the decoder gave an array of {decoded.shape}, not {expected}")
    words = decoded.view(decoded.dtype.str.replace("i", "u"))
    if rle:
        return StoredFrame(
            words=words,
            bits=description.bits_stored,
            shift=description.high_bit + 1 - description.bits_stored,
            signed=description.signed,
        )
    return StoredFrame(
        words=words, bits=8 * decoded.dtype.itemsize, signed=decoded.dtype.kind == "i"
    )


def _options(description: PixelDescription, container: int) -> dict[str, Any]:
    """The Image Pixel Module for pydicom's decoder, checked, `container` bits a sample."""
    return {
        "rows": description.rows,
        "columns": description.columns,
        "samples_per_pixel": description.samples,
        "number_of_frames": 1,
        "bits_allocated": container,
        "bits_stored": min(description.bits_stored, container),
        "photometric_interpretation": description.photometric_interpretation,
        "pixel_representation": int(description.signed),
        "planar_configuration": int(description.planar),
        "pixel_keyword": "PixelData",
    }


def _first_encapsulated(ds: Dataset, description: PixelDescription) -> bytes:
    try:
        frame = encaps.get_frame(value(ds, "PixelData"), 0, number_of_frames=description.frames)
    except MemoryError:
        raise
    except Exception as error:
        raise undecodable(
            ds, "the fragments of Pixel Data do not form a frame (PS3.5 A.4)"
        ) from error
    if not frame:
        raise undecodable(ds, "the first frame of Pixel Data is empty")
    return frame


def _checked_precision(ds: Dataset, description: PixelDescription, frame: bytes) -> int:
    """Bits per sample of the codestream, after its size was held against the header."""
    try:
        header = codestream.read_frame_header(frame)
    except ValueError as error:
        raise undecodable(ds, str(error)) from error
    found = f"{header.rows} x {header.columns} pixels of {header.samples} samples"
    declared = f"{description.rows} x {description.columns} pixels of {description.samples} samples"
    if found != declared:
        raise undecodable(
            ds, f"the compressed frame holds {found}, but the header declares {declared}"
        )
    if not 1 <= header.precision <= 16:
        raise undecodable(
            ds, f"the compressed frame has {header.precision} bits per sample, expected 1 to 16"
        )
    return header.precision


def _why(error: Exception) -> str:
    """The decoder's words, on one line and not too long; they describe the codestream."""
    words = " ".join(str(error).split())
    words = words.removeprefix(
        "Unable to decode as exceptions were raised by all available plugins: "
    )
    return f"the decoder failed: {words[:300] or type(error).__name__}"
