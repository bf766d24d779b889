"""What compressed frames say of themselves.

A decoder allocates what the codestream declares, not what the header declares: a file of
a few bytes may ask for 65535 x 65535. So the codestream's own frame header is read first.

Sources: ISO/IEC 10918-1 B.2 (JPEG), 14495-1 C.2 (JPEG-LS), 15444-1 A.5.1 (JPEG 2000 SIZ),
PS3.5 Annex G (RLE).
"""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass

_SOI = b"\xff\xd8"
_SIZ = b"\xff\x4f\xff\x51"
_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  "
_NOT_FRAME_HEADERS = {0xC4, 0xC8, 0xCC}
_SEQUENTIAL = {0xC0, 0xC1}
_SOF_JPEG_LS = 0xF7
_SOS = 0xDA
_MAXIMUM_TILES = 65535
_RLE_HEADER = struct.Struct("<16I")


@dataclass(frozen=True, kw_only=True)
class FrameHeader:
    """Size of a frame as its codestream declares it."""

    rows: int
    columns: int
    samples: int
    precision: int
    """Bits per sample."""


def read_frame_header(frame: bytes) -> FrameHeader:
    """The frame header of a JPEG, JPEG-LS or JPEG 2000 codestream.

    Raises ValueError that says what is wrong.
    """
    if frame.startswith(_SOI):
        return _jpeg(frame)
    start = frame.find(_SIZ) if frame.startswith(_JP2_SIGNATURE) else 0
    if start >= 0 and frame.startswith(_SIZ, start):
        return _jpeg_2000(frame, start)
    raise ValueError("the compressed frame begins with no JPEG or JPEG 2000 marker")


def with_sequential_scan(frame: bytes) -> bytes:
    """A sequential JPEG whose scan header says so.

    B.2.3 prescribes Ss = 0, Se = 63, Ah = Al = 0 for sequential DCT; some modalities write
    Se = 0, and strict decoders refuse. Other streams come back as they are.
    """
    sequential = False
    for marker, start, end in _segments(frame):
        if marker in _SEQUENTIAL:
            sequential = True
        elif marker == _SOS:
            if not sequential or end - start < 3 or frame[end - 3 : end] == b"\x00\x3f\x00":
                return frame
            return frame[: end - 3] + b"\x00\x3f\x00" + frame[end:]
    return frame


def check_rle(frame: bytes, *, segments: int, segment_bytes: int) -> None:
    """Check an RLE header against the image (PS3.5 G.3 to G.5).

    `segments` is samples x bytes per sample, `segment_bytes` what each decodes to. Raises
    ValueError that says what is wrong.
    """
    if len(frame) < _RLE_HEADER.size:
        raise ValueError(f"the RLE frame has {len(frame)} bytes, fewer than its 64-byte header")
    number, *offsets = _RLE_HEADER.unpack_from(frame)
    if number != segments:
        raise ValueError(f"the RLE header declares {number} segments, the image needs {segments}")
    bounds = [*offsets[:number], len(frame)]
    if bounds[0] != _RLE_HEADER.size or any(
        end <= start for start, end in itertools.pairwise(bounds)
    ):
        raise ValueError("the RLE segment offsets are not ascending within the frame")
    for start, end in itertools.pairwise(bounds):
        # two bytes replicate at most 128, so a shorter segment cannot fill its plane
        if (end - start) * 64 < segment_bytes:
            raise ValueError(
                f"an RLE segment of {end - start} bytes cannot hold {segment_bytes} samples"
            )
        _check_rle_expansion(frame, start, end, segment_bytes)


def _check_rle_expansion(frame: bytes, start: int, end: int, segment_bytes: int) -> None:
    """Refuse a segment that could expand far beyond its plane, without expanding it."""
    if (end - start) * 64 <= 4 * segment_bytes:
        return
    position, expanded = start, 0
    while position < end - 1 and expanded <= segment_bytes:
        control = frame[position]
        if control < 128:
            position, expanded = position + control + 2, expanded + control + 1
        elif control > 128:
            position, expanded = position + 2, expanded + 257 - control
        else:
            position += 1
    if end - position > 2 and expanded > segment_bytes:
        raise ValueError(f"an RLE segment expands beyond its {segment_bytes} samples")


def _jpeg(frame: bytes) -> FrameHeader:
    for marker, start, end in _segments(frame):
        if marker == _SOS:
            break
        is_frame_header = 0xC0 <= marker <= 0xCF and marker not in _NOT_FRAME_HEADERS
        if is_frame_header or marker == _SOF_JPEG_LS:
            if end - start < 6:
                break
            precision, rows, columns, samples = struct.unpack_from(">BHHB", frame, start)
            return FrameHeader(rows=rows, columns=columns, samples=samples, precision=precision)
    raise ValueError("the JPEG stream has no frame header before its first scan")


def _segments(frame: bytes) -> list[tuple[int, int, int]]:
    """Marker, start and end of the parameters of each segment up to the first scan."""
    found = []
    position = 2
    while position + 4 <= len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        length = int.from_bytes(frame[position + 2 : position + 4], "big")
        end = position + 2 + length
        if length < 2 or end > len(frame):
            break
        found.append((marker, position + 4, end))
        if marker == _SOS:
            break
        position = end
    return found


def _jpeg_2000(frame: bytes, start: int) -> FrameHeader:
    if len(frame) < start + 43:
        raise ValueError("the JPEG 2000 codestream ends within its SIZ marker segment")
    x1, y1, x0, y0, tile_width, tile_height, tile_x0, tile_y0, samples = struct.unpack_from(
        ">8IH", frame, start + 8
    )
    precision = (frame[start + 42] & 0x7F) + 1
    if x1 <= x0 or y1 <= y0 or not tile_width or not tile_height or tile_x0 > x0 or tile_y0 > y0:
        raise ValueError("the JPEG 2000 SIZ marker segment describes an empty image")
    tiles = -(-(x1 - tile_x0) // tile_width) * -(-(y1 - tile_y0) // tile_height)
    if tiles > _MAXIMUM_TILES:
        raise ValueError(f"the JPEG 2000 codestream declares {tiles} tiles, at most 65535 exist")
    return FrameHeader(rows=y1 - y0, columns=x1 - x0, samples=samples, precision=precision)
