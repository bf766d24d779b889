"""The few facts that an instance is known by, read from the head of its data set.

Walks top-level elements (PS3.5 7.1) without keeping or decoding any but these few, stops
behind them, and never follows a length beyond the end: the cost does not depend on what a
sender claims.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final

from dicomnode.dimse.elements import ElementWalk, ReadAt
from dicomnode.dimse.implementation import MANUFACTURER
from dicomnode.dimse.syntaxes import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from dicomnode.dimse.uid import parse_uid
from dicomnode.errors import NotAnInstance

INFLATED_BYTES: Final = 4 * 1024 * 1024
"""How much of a deflated data set is inflated to look for the facts."""

_WINDOW: Final = 16 * 1024
_MAXIMUM_TEXT: Final = 64

_SOP_CLASS_UID: Final = 0x00080016
_SOP_INSTANCE_UID: Final = 0x00080018
_ACCESSION_NUMBER: Final = 0x00080050
_MODALITY: Final = 0x00080060
_MANUFACTURER: Final = 0x00080070
_PATIENT_ID: Final = 0x00100020
_STUDY_INSTANCE_UID: Final = 0x0020000D
_SERIES_INSTANCE_UID: Final = 0x0020000E
_PIXEL_DATA_GROUP: Final = 0x7FE00000
_FIRST_OF_A_DATA_SET: Final = 0x00080000

_REQUIRED: Final = frozenset(
    {_SOP_CLASS_UID, _SOP_INSTANCE_UID, _STUDY_INSTANCE_UID, _SERIES_INSTANCE_UID}
)
_WANTED: Final = _REQUIRED | {_ACCESSION_NUMBER, _MODALITY, _MANUFACTURER, _PATIENT_ID}


@dataclass(frozen=True, kw_only=True)
class HeaderFacts:
    """What the index needs to know of an instance. Every UID is parsed."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    accession_number: str
    patient_id: str
    modality: str
    own_product: bool


def read_facts(read_at: ReadAt, transfer_syntax_uid: str) -> HeaderFacts:
    """The facts of the data set that `read_at` reads.

    Raises `NotAnInstance` when the bytes are no data set in this transfer syntax, when one
    of the four UIDs is missing or is none, when a fact is given twice, or when elements
    that belong to a command or to file meta information are among them (they would be
    taken for the file's own).
    """
    if transfer_syntax_uid == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        read_at = _inflated(read_at)
    found = _find(
        ElementWalk(
            read_at,
            is_implicit=transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN,
            order=">" if transfer_syntax_uid == EXPLICIT_VR_BIG_ENDIAN else "<",
        )
    )
    return HeaderFacts(
        sop_class_uid=parse_uid(found.get(_SOP_CLASS_UID, b""), what="(0008,0016) SOP Class UID"),
        sop_instance_uid=parse_uid(
            found.get(_SOP_INSTANCE_UID, b""), what="(0008,0018) SOP Instance UID"
        ),
        study_instance_uid=parse_uid(
            found.get(_STUDY_INSTANCE_UID, b""), what="(0020,000D) Study Instance UID"
        ),
        series_instance_uid=parse_uid(
            found.get(_SERIES_INSTANCE_UID, b""), what="(0020,000E) Series Instance UID"
        ),
        accession_number=_text(found.get(_ACCESSION_NUMBER, b"")),
        patient_id=_text(found.get(_PATIENT_ID, b"")),
        modality=_text(found.get(_MODALITY, b"")),
        own_product=_text(found.get(_MANUFACTURER, b"")) == MANUFACTURER,
    )


def _find(walk: ElementWalk) -> dict[int, bytes]:
    """The values of the wanted elements; behind the last of them nothing is read, unless
    the elements come in another order than PS3.5 7.1 demands and one is still missing."""
    found: dict[int, bytes] = {}
    while True:
        element = walk.next_element()
        if element is None or element.tag >= _PIXEL_DATA_GROUP:
            return found
        if element.tag < _FIRST_OF_A_DATA_SET:
            raise NotAnInstance(
                f"({element.tag >> 16:04X},{element.tag & 0xFFFF:04X}) does not belong into a "
                "data set (PS3.5 7.1); send the data set without file meta information"
            )
        if element.tag > _SERIES_INSTANCE_UID and found.keys() >= _REQUIRED:
            return found
        if element.tag in _WANTED:
            if element.tag in found:
                raise NotAnInstance(
                    f"({element.tag >> 16:04X},{element.tag & 0xFFFF:04X}) is given twice"
                )
            found[element.tag] = walk.value(element)
        else:
            walk.skip(element)


def _inflated(read_at: ReadAt) -> ReadAt:
    """The first `INFLATED_BYTES` of a deflated data set (PS3.5 A.5), inflated."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    plain = bytearray()
    offset = 0
    try:
        while len(plain) < INFLATED_BYTES and not inflate.eof:
            deflated = inflate.unconsumed_tail or read_at(offset, _WINDOW)
            if not inflate.unconsumed_tail:
                offset += len(deflated)
            if not deflated:
                break
            plain += inflate.decompress(deflated, INFLATED_BYTES - len(plain))
    except zlib.error as error:
        raise NotAnInstance("the data set is not deflated, or is damaged (PS3.5 A.5)") from error
    return lambda start, count: bytes(plain[start : start + count])


def _text(value: bytes) -> str:
    """A short text for the index; empty when it is longer than any of these may be, because
    half an identifier identifies somebody else."""
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        text = value.decode("latin-1")
    text = text.strip(" \0")
    return text if len(text) <= _MAXIMUM_TEXT and text.isprintable() else ""
