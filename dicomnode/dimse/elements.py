"""Walking over the elements of a data set without decoding them (PS3.5 7.1, 7.5).

Nothing is kept but a small window, nothing recurses, and no length is believed: the cost
of a walk does not depend on what a sender claims.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from dicomnode.errors import NotAnInstance

ReadAt = Callable[[int, int], bytes]
"""Up to `count` bytes of the data set from `offset`."""

MAXIMUM_ELEMENTS: Final = 100_000
"""Elements and items of one walk; what is looked for comes within the first hundred."""

_WINDOW: Final = 16 * 1024
_MAXIMUM_VALUE: Final = 0xFFFF
_UNDEFINED: Final = 0xFFFFFFFF
_ITEM: Final = 0xFFFEE000
_ITEM_DELIMITATION: Final = 0xFFFEE00D
_SEQUENCE_DELIMITATION: Final = 0xFFFEE0DD
_LONG_VRS: Final = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""Those with a 32-bit length (PS3.5 7.1.2)."""


class Element(NamedTuple):
    tag: int
    length: int
    is_implicit: bool


class ElementWalk:
    """A position in a data set."""

    def __init__(self, read_at: ReadAt, *, is_implicit: bool, order: str, start: int = 0) -> None:
        self._read_at = read_at
        self._is_implicit = is_implicit
        self._tag = struct.Struct(f"{order}HH")
        self._length_16 = struct.Struct(f"{order}H")
        self._length_32 = struct.Struct(f"{order}I")
        self._position = start
        self._window = b""
        self._window_start = start
        self._elements_left = MAXIMUM_ELEMENTS

    @property
    def position(self) -> int:
        """Where the next element starts, or the value of the last one."""
        return self._position

    def next_element(self) -> Element | None:
        """The header of the next element, None at the end."""
        if not self._peek(1):
            return None
        return self._read_header(self._is_implicit)

    def value(self, element: Element) -> bytes:
        """The value of a wanted element: short, and never a sequence."""
        if element.length == _UNDEFINED:
            raise self._bad(element, "has undefined length, expected a short value")
        if element.length > _MAXIMUM_VALUE:
            raise self._bad(element, f"claims {element.length} bytes, expected a short value")
        return self._read(element.length, element)

    def skip(self, element: Element) -> None:
        if element.length != _UNDEFINED:
            self._advance(element)
        else:
            self._skip_undefined(element)

    def _skip_undefined(self, element: Element) -> None:
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
        self, inner: Element, open_items: list[bool], sequences: list[bool]
    ) -> None:
        if inner.tag == _SEQUENCE_DELIMITATION:
            sequences.pop()
        elif inner.tag != _ITEM:
            raise self._bad(inner, "where an item was expected")
        elif inner.length == _UNDEFINED:
            open_items.append(sequences[-1])
        else:
            self._advance(inner)

    def _read_header(self, is_implicit: bool) -> Element:
        self._elements_left -= 1
        if self._elements_left < 0:
            raise NotAnInstance(
                f"more than {MAXIMUM_ELEMENTS} elements and items before what was looked for"
            )
        head = self._peek(12)
        if len(head) < 8:
            raise NotAnInstance("the data set ends within the header of an element")
        group, number = self._tag.unpack_from(head)
        tag = (group << 16) | number
        if is_implicit or group == 0xFFFE:
            self._position += 8
            return Element(tag, self._length_32.unpack_from(head, 4)[0], is_implicit)
        vr = head[4:6]
        if not (vr.isalpha() and vr.isupper()):
            raise NotAnInstance(
                f"({group:04X},{number:04X}) has no value representation; expected a data set "
                "in explicit VR, as the presentation context says"
            )
        if vr not in _LONG_VRS:
            self._position += 8
            return Element(tag, self._length_16.unpack_from(head, 6)[0], False)
        if len(head) < 12:
            raise NotAnInstance("the data set ends within the header of an element")
        self._position += 12
        length = self._length_32.unpack_from(head, 8)[0]
        return Element(tag, length, vr == b"UN" and length == _UNDEFINED)

    def _advance(self, element: Element) -> None:
        """Behind a value. A length beyond the end is seen by whoever looks for more."""
        self._position += element.length

    def _read(self, count: int, element: Element) -> bytes:
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

    def _bad(self, element: Element, finding: str) -> NotAnInstance:
        return NotAnInstance(
            f"({element.tag >> 16:04X},{element.tag & 0xFFFF:04X}) {finding} (PS3.5 7.1)"
        )
