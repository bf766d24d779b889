"""When to try again, as a table with the arithmetic beside each row."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dicomnode.errors import (
    BackendUnavailable,
    DestinationBusy,
    TransientError,
    UndecodableImage,
)
from dicomnode.retry import GiveUp, RetryAt, RetryPolicy, backoff_seconds, decide

NOW = datetime(2026, 1, 2, tzinfo=UTC)
POLICY = RetryPolicy(
    base_seconds=1.0, cap_seconds=60.0, maximum_attempts=3, maximum_age_seconds=3600.0
)


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [(1, 1.0), (2, 2.0), (3, 4.0), (6, 32.0), (7, 60.0), (10_000, 60.0), (0, 1.0)],
)
def test_the_wait_doubles_up_to_the_cap(attempts: int, expected: float) -> None:
    assert backoff_seconds(attempts, POLICY) == expected


@pytest.mark.parametrize(
    ("error", "attempts", "age", "expected"),
    [
        (UndecodableImage("x"), 1, 0, GiveUp),
        (DestinationBusy("x"), 1, 0, 1.0),
        (DestinationBusy("x"), 2, 0, 2.0),
        (DestinationBusy("x"), 3, 0, GiveUp),
        (RuntimeError("nobody foresaw it"), 2, 0, 2.0),
        (RuntimeError("nobody foresaw it"), 3, 0, GiveUp),
        (BackendUnavailable("x"), 500, 3599, 60.0),
        (BackendUnavailable("x"), 1, 3601, GiveUp),
        (TransientError("x", retry_after_seconds=30), 1, 0, 30.0),
        (TransientError("x", retry_after_seconds=1e9), 1, 0, 60.0),
    ],
)
def test_what_happens_after_an_error(
    error: Exception, attempts: int, age: float, expected: float | type[GiveUp]
) -> None:
    decision = decide(
        error,
        attempts=attempts,
        created_at=NOW - timedelta(seconds=age),
        now=NOW,
        policy=POLICY,
    )
    if isinstance(expected, float):
        assert decision == RetryAt(when=NOW + timedelta(seconds=expected))
    else:
        assert isinstance(decision, expected)
