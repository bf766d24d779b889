"""The few facts that an instance is known by, read from the head of its data set.

Walks top-level elements (PS3.5 7.1) without keeping or decoding any but these few, stops
behind them, and never follows a length beyond the end: the cost does not depend on what a
sender claims.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from dicomnode.dimse.implementation import MANUFACTURER
from dicomnode.dimse.syntaxes import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from dicomnode.dimse.uid import parse_uid
from dicomnode.errors import NotAnInstance

ReadAt = Callable[[int, int], bytes]
"""Up to `count` bytes of the data set from `offset`."""

INFLATED_BYTES: Final = 4 * 1024 * 1024
"""How much of a deflated data set is inflated to look for the facts."""
MAXIMUM_ELEMENTS: Final = 100_000
"""Elements and items to walk over; the facts come within the first hundred usually."""

_WINDOW: Final = 16 * 1024
_UNDEFINED: Final = 0xFFFFFFFF
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
_ITEM: Final = 0xFFFEE000
_ITEM_DELIMITATION: Final = 0xFFFEE00D
_SEQUENCE_DELIMITATION: Final = 0xFFFEE0DD

_REQUIRED: Final = frozenset(
    {_SOP_CLASS_UID, _SOP_INSTANCE_UID, _STUDY_INSTANCE_UID, _SERIES_INSTANCE_UID}
)
_WANTED: Final = _REQUIRED | {_ACCESSION_NUMBER, _MODALITY, _MANUFACTURER, _PATIENT_ID}
_LONG_VRS: Final = frozenset(
    b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split()  # PS3.5 7.1.2
)


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
        _Walk(
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


def _find(walk: _Walk) -> dict[int, bytes]:
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


class _Element(NamedTuple):
    tag: int
    length: int
    is_implicit: bool


class _Walk:
    """A position in a data set."""

    def __init__(self, read_at: ReadAt, *, is_implicit: bool, order: str) -> None:
        self._read_at = read_at
        self._is_implicit = is_implicit
        self._tag = struct.Struct(f"{order}HH")
        self._length_16 = struct.Struct(f"{order}H")
        self._length_32 = struct.Struct(f"{order}I")
        self._position = 0
        self._window = b""
        self._window_start = 0
        self._elements_left = MAXIMUM_ELEMENTS

    def next_element(self) -> _Element | None:
        """The header of the next element, None at the end."""
        if not self._peek(1):
            return None
        return self._read_header(self._is_implicit)

    def value(self, element: _Element) -> bytes:
        """The value of a wanted element: short, and never a sequence."""
        if element.length == _UNDEFINED:
            raise self._bad(element, "has undefined length, expected a short value")
        if element.length > 0xFFFF:
            raise self._bad(element, f"claims {element.length} bytes, expected a short value")
        return self._read(element.length, element)

    def skip(self, element: _Element) -> None:
        if element.length != _UNDEFINED:
            self._advance(element)
        else:
            self._skip_undefined(element)

    def _skip_undefined(self, element: _Element) -> None:
        """Over a sequence of undefined length, whatever is nested in it, without recursion.

        The stack holds, for each open item, whether its elements are in implicit VR: those
        of a UN element of undefined length are (PS3.5 6.2.2 note 2).
        """
        open_items: list[bool] = []
        sequences = [element.is_implicit]
        while sequences:
            inner = self._read_header(sequences[-1])
            if len(open_items) < len(sequences):
                self._step_in_sequence(inner, open_items, sequences)
            elif inner.tag == _ITEM_DELIMITATION:
                open_items.pop()
            elif inner.length == _UNDEFINED:
                sequences.append(inner.is_implicit)
            else:
                self._advance(inner)

    def _step_in_sequence(
        self, inner: _Element, open_items: list[bool], sequences: list[bool]
    ) -> None:
        if inner.tag == _SEQUENCE_DELIMITATION:
            sequences.pop()
        elif inner.tag != _ITEM:
            raise self._bad(inner, "where an item was expected")
        elif inner.length == _UNDEFINED:
            open_items.append(sequences[-1])
        else:
            self._advance(inner)

    def _read_header(self, is_implicit: bool) -> _Element:
        self._elements_left -= 1
        if self._elements_left < 0:
            raise NotAnInstance(
                f"more than {MAXIMUM_ELEMENTS} elements before (0020,000E) Series Instance UID"
            )
        head = self._peek(12)
        if len(head) < 8:
            raise NotAnInstance("the data set ends within the header of an element")
        group, number = self._tag.unpack_from(head)
        tag = (group << 16) | number
        if is_implicit or group == 0xFFFE:
            self._position += 8
            return _Element(tag, self._length_32.unpack_from(head, 4)[0], is_implicit)
        vr = head[4:6]
        if not (vr.isalpha() and vr.isupper()):
            raise NotAnInstance(
                f"({group:04X},{number:04X}) has no value representation; expected a data set "
                "in explicit VR, as the presentation context says"
            )
        if vr not in _LONG_VRS:
            self._position += 8
            return _Element(tag, self._length_16.unpack_from(head, 6)[0], False)
        if len(head) < 12:
            raise NotAnInstance("the data set ends within the header of an element")
        self._position += 12
        length = self._length_32.unpack_from(head, 8)[0]
        return _Element(tag, length, vr == b"UN" and length == _UNDEFINED)

    def _advance(self, element: _Element) -> None:
        """Behind a value; its last byte is read, so that a length beyond the end is seen."""
        if element.length:
            self._position += element.length - 1
            self._read(1, element)

    def _read(self, count: int, element: _Element) -> bytes:
        data = self._peek(count)[:count]
        if len(data) < count:
            raise self._bad(element, f"claims {element.length} bytes, more than there are")
        self._position += count
        return data

    def _peek(self, count: int) -> bytes:
        """At least `count` bytes from the position, fewer only at the end."""
        start = self._position - self._window_start
        if start < 0 or start + count > len(self._window):
            self._window = self._read_at(self._position, max(count, _WINDOW))
            self._window_start = self._position
            start = 0
        return self._window[start : start + count]

    def _bad(self, element: _Element, finding: str) -> NotAnInstance:
        return NotAnInstance(
            f"({element.tag >> 16:04X},{element.tag & 0xFFFF:04X}) {finding} (PS3.5 7.1)"
        )


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
