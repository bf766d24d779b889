"""Values of a data set that may be broken.

pydicom converts an element when it is first read, and a malformed one raises whatever
its converter happens to meet. These readers answer "no usable value" instead.
"""

from __future__ import annotations

import math
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import UID

from dicomnode.errors import UndecodableImage


def value(ds: Dataset, keyword: str) -> Any:
    """The element's value; None when it is absent, empty or malformed."""
    try:
        found = ds.get(keyword)
        return None if isinstance(found, str | bytes | MultiValue) and not found else found
    except Exception:  # noqa: BLE001 - converters raise anything on malformed bytes
        return None


def first(ds: Dataset, keyword: str) -> Any:
    """The first value of an element that may hold several."""
    found = value(ds, keyword)
    if isinstance(found, MultiValue | list | tuple):
        return found[0] if len(found) else None
    return found


def integer(ds: Dataset, keyword: str) -> int | None:
    """The first value as an integer, if it is one."""
    number = real(ds, keyword)
    return int(number) if number is not None and number == int(number) else None


def real(ds: Dataset, keyword: str) -> float | None:
    """The first value as a finite number, if it is one."""
    found = first(ds, keyword)
    if not isinstance(found, str | int | float) or isinstance(found, bool):
        return None
    try:
        number = float(found)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def texts(ds: Dataset, keyword: str) -> list[str]:
    """All values as stripped text; empty when there is none."""
    found = value(ds, keyword)
    if found is None:
        return []
    several = found if isinstance(found, MultiValue | list | tuple) else [found]
    return [str(one).strip() for one in several if isinstance(one, str | int | float)]


def text(ds: Dataset, keyword: str) -> str:
    """The first value as stripped text; "" when there is none."""
    return next(iter(texts(ds, keyword)), "")


def items(ds: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence; empty when it is absent or no sequence."""
    found = value(ds, keyword)
    if found is None or isinstance(found, str | bytes | int | float):
        return []
    try:
        return [item for item in found if isinstance(item, Dataset)]
    except Exception:  # noqa: BLE001 - items are parsed on access as well
        return []


def transfer_syntax(ds: Dataset) -> UID:
    """(0002,0010) Transfer Syntax UID; an empty UID when the file does not say."""
    meta = getattr(ds, "file_meta", None)
    found = None if meta is None else value(meta, "TransferSyntaxUID")
    return found if isinstance(found, UID) else UID("")


def sop_instance_uid(ds: Dataset) -> str:
    """The SOP Instance UID if it is a valid one (PS3.5 9.1), else ""."""
    found = value(ds, "SOPInstanceUID")
    return str(found) if isinstance(found, UID) and found.is_valid else ""


def subject(ds: Dataset) -> str:
    """How messages name an instance: its UID, if valid, and its transfer syntax.

    Nothing else of the header is repeated, so no patient data can slip into a message.
    """
    syntax = transfer_syntax(ds)
    if not syntax or not syntax.is_valid:
        named = "no valid transfer syntax"
    elif syntax.name == syntax:
        named = f"transfer syntax {syntax}, unknown here"
    else:
        named = f"transfer syntax {syntax.name!r}"
    return f"{sop_instance_uid(ds) or 'an instance without valid UID'} ({named})"


def undecodable(ds: Dataset, what: str) -> UndecodableImage:
    """The error for this instance: who, which transfer syntax, what was wrong."""
    return UndecodableImage(f"cannot decode {subject(ds)}: {what}")
