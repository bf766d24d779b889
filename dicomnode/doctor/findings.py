"""What a look comes to."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Verdict(enum.Enum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    """The node works; something should be known or changed."""
    FAIL = "fail"
    """The node does not start, loses data or cannot do its work."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report. Holds no patient data and no secret."""

    check: str
    verdict: Verdict
    found: str
    expected: str = ""
    next_step: str = ""


def ok(check: str, found: str) -> Finding:
    return Finding(check=check, verdict=Verdict.OK, found=found)


def warn(check: str, found: str, *, expected: str, next_step: str) -> Finding:
    return Finding(
        check=check, verdict=Verdict.WARN, found=found, expected=expected, next_step=next_step
    )


def fail(check: str, found: str, *, expected: str, next_step: str) -> Finding:
    return Finding(
        check=check, verdict=Verdict.FAIL, found=found, expected=expected, next_step=next_step
    )
