"""Unique identifiers as values of PS3.5 9.1, parsed before anything relies on them."""

from __future__ import annotations

import re

from dicomnode.errors import NotAnInstance

_UID = re.compile(r"(?:0|[1-9][0-9]*)(?:\.(?:0|[1-9][0-9]*))*")
_MAXIMUM_LENGTH = 64


def is_uid(value: str) -> bool:
    """Whether `value` is a UID: 1-64 characters, numbers without leading zeros, dots between."""
    return len(value) <= _MAXIMUM_LENGTH and _UID.fullmatch(value) is not None


def parse_uid(value: str | bytes, *, what: str) -> str:
    """The UID in `value`, without the padding that PS3.5 6.2 allows (a null, and a space,
    which many senders use instead).

    Raises `NotAnInstance` naming `what`; the text itself is not repeated, because nobody
    knows what a field that holds no UID does hold.
    """
    text = value.decode("latin-1") if isinstance(value, bytes) else value
    uid = text.rstrip("\0 ")
    if not uid:
        raise NotAnInstance(f"{what} is missing or empty; expected a UID (PS3.5 9.1)")
    if not is_uid(uid):
        raise NotAnInstance(
            f"{what} is not a UID (PS3.5 9.1): found {len(uid)} characters that are not "
            "1-64 digits and dots without leading zeros; correct it at the sender"
        )
    return uid
