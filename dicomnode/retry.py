"""When to try again: a pure decision.

`decide` looks at an error and a job's history and returns what to do; the worker merely
carries it out.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from dicomnode.errors import OutageError, PermanentError, TransientError


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How patient the node is."""

    base_seconds: float = 1.0
    cap_seconds: float = 60.0
    maximum_attempts: int = 10
    maximum_age_seconds: float = 7 * 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class RetryAt:
    when: datetime


@dataclass(frozen=True, kw_only=True)
class GiveUp:
    why: str


Decision = RetryAt | GiveUp


def backoff_seconds(attempts: int, policy: RetryPolicy) -> float:
    """Seconds to wait after the attempt with this number: base, 2 base, 4 base ... cap."""
    exponent = min(max(attempts, 1) - 1, 30)
    return min(policy.base_seconds * 2.0**exponent, policy.cap_seconds)


def decide(
    error: Exception, *, attempts: int, created_at: datetime, now: datetime, policy: RetryPolicy
) -> Decision:
    """What to do with a job whose attempt number `attempts` ended in `error`.

    A permanent error gives up at once. An outage is retried until the job is
    `maximum_age_seconds` old: it says nothing about the job, so counting attempts would
    lose it. Any other error, those that nobody foresaw included, is retried
    `maximum_attempts` times.
    """
    if isinstance(error, PermanentError):
        return GiveUp(why="trying again would fail again")
    if isinstance(error, OutageError):
        age = (now - created_at).total_seconds()
        if age > policy.maximum_age_seconds:
            return GiveUp(why=f"still failing after {age / 3600:.0f} h")
    elif attempts >= policy.maximum_attempts:
        return GiveUp(why=f"failed {attempts} times")
    wait = backoff_seconds(attempts, policy)
    if isinstance(error, TransientError) and error.retry_after_seconds is not None:
        wait = max(wait, min(error.retry_after_seconds, policy.cap_seconds))
    return RetryAt(when=now + timedelta(seconds=wait))
