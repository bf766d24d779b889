"""What a value representation holds (PS3.5 section 6.2): pure checks on text.

Values of identity are carried verbatim or not at all, so nothing here repairs them;
`fitted` is for our own texts only.
"""

from __future__ import annotations

import datetime
import re

_UID = re.compile(r"[0-2](\.(0|[1-9][0-9]*))+")
_DATE = re.compile(r"[0-9]{8}")
_TIME = re.compile(r"([01][0-9]|2[0-3])([0-5][0-9]([0-5][0-9](\.[0-9]{1,6})?)?)?")
_CODE_STRING = re.compile(r"[A-Z0-9 _]{1,16}")
_AGE = re.compile(r"[0-9]{3}[DWMY]")
_OFFSET = re.compile(r"[+-][0-9]{4}")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def is_uid(value: str) -> bool:
    """PS3.5 9.1: numeric components without leading zeros, at most 64 characters."""
    return len(value) <= 64 and _UID.fullmatch(value) is not None


def is_text(value: str, limit: int) -> bool:
    """One value of VR LO (64) or SH (16): no control characters, no backslash."""
    return (
        len(value) <= limit
        and "\\" not in value
        and _REPLACEMENT not in value
        and not any(_is_control(character) for character in value)
    )


def is_person_name(value: str) -> bool:
    """VR PN (PS3.5 6.2.1): up to three groups of up to five components, 64 characters each."""
    groups = value.split("=")
    return len(groups) <= 3 and all(
        is_text(group, 64) and group.count("^") <= 4 for group in groups
    )


def is_date(value: str) -> bool:
    """VR DA: YYYYMMDD, and a day that exists."""
    if _DATE.fullmatch(value) is None:
        return False
    try:
        datetime.date(int(value[:4]), int(value[4:6]), int(value[6:]))
    except ValueError:
        return False
    return True


def is_time(value: str) -> bool:
    """VR TM: HH[MM[SS[.F]]]."""
    return _TIME.fullmatch(value) is not None


def is_code_string(value: str) -> bool:
    """VR CS."""
    return _CODE_STRING.fullmatch(value) is not None


def is_age(value: str) -> bool:
    """VR AS."""
    return _AGE.fullmatch(value) is not None


def is_utc_offset(value: str) -> bool:
    """Timezone Offset From UTC (PS3.3 C.12.1.1.8): -1200 to +1400, and not -0000."""
    if _OFFSET.fullmatch(value) is None or value == "-0000" or int(value[3:]) > 59:
        return False
    return -1200 <= int(value) <= 1400


def canonical_name(value: str) -> tuple[str, ...]:
    """The groups of a person name in a form that two modalities write alike: case,
    padding and trailing delimiters say nothing about who it is."""
    groups = []
    for group in value.split("="):
        components = [" ".join(part.split()).casefold() for part in group.split("^")]
        groups.append("^".join(components).rstrip("^"))
    return tuple(groups)


def fitted(text: str, limit: int) -> str:
    """Our own text made to fit one value of at most `limit` characters.

    Control characters and backslashes become spaces, runs of spaces one, and what is
    too long ends in an ellipsis. Never used on a value of the patient.
    """
    clean = "".join(" " if _is_control(c) or c == "\\" else c for c in text)
    clean = " ".join(clean.split())
    return clean if len(clean) <= limit else clean[: limit - 3].rstrip() + "..."


def _is_control(character: str) -> bool:
    code = ord(character)
    return code < 0x20 or 0x7F <= code < 0xA0 or 0xD800 <= code <= 0xDFFF
