"""Every status that a PACS may answer falls into exactly one category."""

from __future__ import annotations

import pytest

from dicomnode.status import StatusCategory, StorageStatus, categorise


@pytest.mark.parametrize(
    ("status", "category"),
    [
        (0x0000, StatusCategory.STORED),
        (0xB000, StatusCategory.STORED),
        (0xB007, StatusCategory.STORED),
        (0x0111, StatusCategory.STORED),
        (0xA700, StatusCategory.TRY_AGAIN),
        (0xA701, StatusCategory.TRY_AGAIN),
        (0x0110, StatusCategory.TRY_AGAIN),
        (0xA900, StatusCategory.REFUSED),
        (0xC000, StatusCategory.REFUSED),
        (0x0122, StatusCategory.REFUSED),
        (0x0124, StatusCategory.REFUSED),
    ],
)
def test_a_status_tells_the_sender_what_to_do(status: int, category: StatusCategory) -> None:
    assert categorise(status) is category


def test_no_status_at_all_is_left_without_a_category() -> None:
    assert {categorise(status) for status in range(0x10000)} == set(StatusCategory)


def test_statuses_are_those_of_the_standard() -> None:
    """PS3.4 Table B.2-1, PS3.7 Annex C."""
    assert {member.name: member.value for member in StorageStatus} == {
        "SUCCESS": 0x0000,
        "OUT_OF_RESOURCES": 0xA700,
        "DATA_SET_DOES_NOT_MATCH_SOP_CLASS": 0xA900,
        "CANNOT_UNDERSTAND": 0xC000,
        "SOP_CLASS_NOT_SUPPORTED": 0x0122,
        "NOT_AUTHORIZED": 0x0124,
        "DUPLICATE_SOP_INSTANCE": 0x0111,
        "PROCESSING_FAILURE": 0x0110,
    }
