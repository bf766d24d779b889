"""Reading headers that anyone may have written.

Values are taken as bytes where the data set still holds bytes, and decoded strictly:
pydicom's own conversion replaces what it cannot decode, guesses Latin-1 where no
character set is declared, and prints the value in a warning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pydicom.charset import convert_encodings, decode_bytes, python_encoding
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.valuerep import PersonName

from dicomnode.sr import values

_TEXT_VRS = frozenset(
    "AE AS CS DA DS DT IS LO LT PN SH ST TM UC UI UN UR UT".split()  # noqa: SIM905
)
_DELIMITERS = {0x0D, 0x0A, 0x09, 0x0C, 0x5E, 0x3D}
_ESCAPE = b"\x1b"
_DEFAULT_REPERTOIRE = ("", "ISO_IR 6", "ISO 2022 IR 6")
"""ASCII, which pydicom reads as Latin-1."""


class Header:
    """One data set, read tolerantly.

    `read` gives "" for what is absent or empty and None for what is there but is not a
    valid value; which of the two matters is the caller's business.
    """

    def __init__(self, dataset: Dataset, *, inherited: tuple[str, ...] = ("ascii",)) -> None:
        self._dataset = dataset
        self._encodings = inherited
        declared = self._declared_encodings()
        if declared:
            self._encodings = declared

    def read(self, keyword: str, is_valid: Callable[[str], bool]) -> str | None:
        text = self._text(keyword)
        if text is None or text == "":
            return text
        return text if is_valid(text) else None

    def valid(self, keyword: str, is_valid: Callable[[str], bool]) -> str:
        """The value, or "" when there is no valid one."""
        return self.read(keyword, is_valid) or ""

    def long_string(self, keyword: str) -> str:
        return self.valid(keyword, lambda value: values.is_text(value, 64))

    def uid(self, keyword: str) -> str:
        return self.valid(keyword, values.is_uid)

    def numbers(self, keyword: str) -> tuple[float, ...]:
        """The values of a numeric element; empty when absent or not numeric."""
        try:
            value = self._element_value(keyword)
            items = value if isinstance(value, MultiValue | list | tuple) else [value]
            return tuple(float(item) for item in items if item is not None and item != "")
        except (TypeError, ValueError, OverflowError):
            return ()

    def items(self, keyword: str) -> Iterator[Header]:
        """The items of a sequence, each with its own or the inherited character set."""
        try:
            value = self._element_value(keyword)
        except (TypeError, ValueError, OverflowError):
            return
        if not isinstance(value, Sequence):
            return
        for item in value:
            yield Header(item, inherited=self._encodings)

    def _text(self, keyword: str) -> str | None:
        element = self._dataset.get_item(_tag(keyword))
        if element is None or element.value is None:
            return ""
        if (element.VR or "UN") not in _TEXT_VRS:
            return None
        value = element.value
        if isinstance(value, bytes):
            decoded = self._decoded(value)
        elif isinstance(value, MultiValue | list):
            decoded = "\\".join(str(part) for part in value)
        elif isinstance(value, str | PersonName):
            decoded = str(value)
        else:
            return None
        if decoded is None or (not decoded.isascii() and self._encodings == ("ascii",)):
            return None
        return decoded.rstrip(" \0")

    def _decoded(self, value: bytes) -> str | None:
        """None when the bytes are not text in the declared character set."""
        try:
            if _ESCAPE not in value:
                return value.decode(self._encodings[0])
            # an escape is reset by a delimiter (PS3.5 6.1.2.5.3), so the groups of a
            # name and its components are decoded one after the other
            return decode_bytes(value, self._encodings, _DELIMITERS)
        except (UnicodeError, LookupError):
            return None

    def _declared_encodings(self) -> tuple[str, ...]:
        """Python's names of the character sets; ASCII alone where none, or an unknown one,
        is declared (PS3.3 C.12.1.1.2)."""
        tag = _tag("SpecificCharacterSet")
        if tag not in self._dataset:
            return ()
        value = self._dataset.get_item(tag).value
        if isinstance(value, bytes):
            value = value.decode("ascii", errors="replace")
        parts = value if isinstance(value, MultiValue | list) else str(value or "").split("\\")
        names = [str(part).strip(" \0") for part in parts]
        if not any(names) or any(name not in python_encoding for name in names):
            return ("ascii",)
        encodings = convert_encodings(names)
        if names[0] in _DEFAULT_REPERTOIRE:
            encodings[0] = "ascii"
        return tuple(encodings)

    def _element_value(self, keyword: str) -> Any:
        tag = _tag(keyword)
        if tag not in self._dataset:
            return None
        try:
            element = self._dataset[tag]
        except Exception as error:  # pydicom lets any error of its converters through
            raise ValueError(f"{keyword} cannot be converted") from error
        return element.value


def _tag(keyword: str) -> BaseTag:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"{keyword} is not a keyword of the data dictionary (PS3.6)")
    return BaseTag(tag)
