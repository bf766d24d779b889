"""P-DATA-TF: presentation data values, as they arrive and as they leave (PS3.8 9.3.5, E.2)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from dicomnode.dimse.inflow import Inflow
from dicomnode.dimse.pdu import HEADER, PduType
from dicomnode.dimse.peer_errors import AbortReason, ProtocolViolation

_ITEM = struct.Struct(">IBB")
_IS_COMMAND = 0x01
_IS_LAST = 0x02
_LEAST_FRAGMENT = 64


class Fragment(NamedTuple):
    """A piece of a presentation data value.

    A value larger than what has arrived comes in several pieces; `is_last` is set on the
    last piece of the last value of a command or data set. `data` is valid until the next
    piece is asked for.
    """

    context_id: int
    is_command: bool
    is_last: bool
    data: memoryview


_NOTHING = memoryview(b"")


def read_fragments(inflow: Inflow, length: int) -> Iterator[Fragment]:
    """The fragments in the `length` bytes that follow the header of a P-DATA-TF PDU.

    Raises `ProtocolViolation` for a value that is shorter than its own header or longer
    than its PDU.
    """
    remaining = length
    while remaining:
        if remaining < _ITEM.size:
            raise ProtocolViolation(
                AbortReason.INVALID_PDU_PARAMETER_VALUE,
                f"P-DATA-TF: {remaining} bytes are left, fewer than a PDV item needs",
            )
        item_length, context_id, control = _ITEM.unpack(inflow.take(_ITEM.size))
        missing = item_length - 2
        remaining -= _ITEM.size
        if not 0 <= missing <= remaining:
            raise ProtocolViolation(
                AbortReason.INVALID_PDU_PARAMETER_VALUE,
                f"P-DATA-TF: a PDV item claims {item_length} bytes, expected 2 to {remaining + 2}",
            )
        remaining -= missing
        is_command, is_last = bool(control & _IS_COMMAND), bool(control & _IS_LAST)
        if missing == 0:
            yield Fragment(context_id, is_command, is_last, _NOTHING)
        while missing:
            data = inflow.take_some(missing)
            missing -= len(data)
            yield Fragment(context_id, is_command, is_last and missing == 0, data)


def encode_fragments(
    context_id: int, data: bytes, *, is_command: bool, maximum_length: int
) -> Iterator[bytes]:
    """P-DATA-TF PDUs that carry `data`, none longer than the peer's `maximum_length`
    (0: unlimited, PS3.8 D.1)."""
    size = len(data) if maximum_length == 0 else max(maximum_length - _ITEM.size, _LEAST_FRAGMENT)
    for start in range(0, max(len(data), 1), max(size, 1)):
        piece = data[start : start + size]
        is_last = start + size >= len(data)
        control = (_IS_COMMAND if is_command else 0) | (_IS_LAST if is_last else 0)
        yield (
            HEADER.pack(PduType.P_DATA_TF, _ITEM.size + len(piece))
            + _ITEM.pack(len(piece) + 2, context_id, control)
            + piece
        )


def encode_stream(context_id: int, data: BinaryIO, *, maximum_length: int) -> Iterator[bytes]:
    """As `encode_fragments`, of a data set that is read piece by piece."""
    size = max(maximum_length - _ITEM.size, _LEAST_FRAGMENT)
    piece = data.read(size)
    while True:
        following = data.read(size)
        control = 0 if following else _IS_LAST
        yield (
            HEADER.pack(PduType.P_DATA_TF, _ITEM.size + len(piece))
            + _ITEM.pack(len(piece) + 2, context_id, control)
            + piece
        )
        if not following:
            return
        piece = following
