"""Protocol data units: their frame, and those that fit in a few bytes (PS3.8 9.3)."""

from __future__ import annotations

import enum
import struct

from dicomnode.dimse.peer_errors import AbortReason

HEADER = struct.Struct(">BxI")
"""PDU-type, reserved, PDU-length (of what follows)."""


class PduType(enum.IntEnum):
    """PS3.8 Table 9-11 and following."""

    A_ASSOCIATE_RQ = 0x01
    A_ASSOCIATE_AC = 0x02
    A_ASSOCIATE_RJ = 0x03
    P_DATA_TF = 0x04
    A_RELEASE_RQ = 0x05
    A_RELEASE_RP = 0x06
    A_ABORT = 0x07


ABORT_SOURCE_USER = 0
ABORT_SOURCE_PROVIDER = 2

A_RELEASE_RP = HEADER.pack(PduType.A_RELEASE_RP, 4) + bytes(4)
A_RELEASE_RQ = HEADER.pack(PduType.A_RELEASE_RQ, 4) + bytes(4)


def encode_abort(source: int, reason: AbortReason = AbortReason.NOT_SPECIFIED) -> bytes:
    """An A-ABORT PDU (PS3.8 9.3.8)."""
    return HEADER.pack(PduType.A_ABORT, 4) + bytes((0, 0, source, reason))


def encode_reject(result: int, source: int, reason: int) -> bytes:
    """An A-ASSOCIATE-RJ PDU (PS3.8 9.3.4)."""
    return HEADER.pack(PduType.A_ASSOCIATE_RJ, 4) + bytes((0, result, source, reason))
