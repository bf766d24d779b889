"""DIMSE statuses by name, one place for each number.

Sources: PS3.4 Annex B.2.3 (Storage), PS3.7 Annex C (general status codes).
"""

from __future__ import annotations

import enum


class StorageStatus(enum.IntEnum):
    """What a Storage SCP answers, and what a Storage SCU may receive."""

    SUCCESS = 0x0000
    OUT_OF_RESOURCES = 0xA700
    """Refused: sending again later may succeed."""
    DATA_SET_DOES_NOT_MATCH_SOP_CLASS = 0xA900
    CANNOT_UNDERSTAND = 0xC000
    """Sending the same bytes again will not help."""
    SOP_CLASS_NOT_SUPPORTED = 0x0122
    NOT_AUTHORIZED = 0x0124
    DUPLICATE_SOP_INSTANCE = 0x0111
    PROCESSING_FAILURE = 0x0110


class VerificationStatus(enum.IntEnum):
    """What a Verification SCP answers (PS3.7 C.1)."""

    SUCCESS = 0x0000


class StatusCategory(enum.Enum):
    """What a storage status means for the sender."""

    STORED = "stored"
    TRY_AGAIN = "try again"
    REFUSED = "refused"


def categorise(status: int) -> StatusCategory:
    """What the sender of a C-STORE should do about `status`.

    =================  ===========================================  =========
    Status             Meaning                                      Category
    =================  ===========================================  =========
    0x0000             Success                                      stored
    0x0001, 0xBxxx     Success with a warning                       stored
    0x0107, 0x0116     Attribute warnings (PS3.7 C.4)               stored
    0x0111             Duplicate SOP Instance: it is there already  stored
    0xA7xx             Refused: Out of Resources                    try again
    0x0110, 0x0213     Processing failure, resource limitation      try again
    anything else      0xA9xx, 0xCxxx, 0x01xx, 0x02xx ...           refused
    =================  ===========================================  =========
    """
    if status in (0x0000, 0x0001, 0x0107, 0x0116, 0x0111) or 0xB000 <= status <= 0xBFFF:
        return StatusCategory.STORED
    if 0xA700 <= status <= 0xA7FF or status in (0x0110, 0x0213):
        return StatusCategory.TRY_AGAIN
    return StatusCategory.REFUSED
