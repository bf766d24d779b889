"""Decisions about backends: pure. No sockets, no clock, no locks.

Which backend gets the next request, what a status means for it, and when it is left out
and asked again.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import grpc


class Verdict(enum.Enum):
    """What to do after a try that ended with some status."""

    ACCEPT = "accept"
    ELSEWHERE = "elsewhere"
    """The backend is at fault: ask another, and count it against this one."""
    BUSY = "busy"
    """The backend is full: ask another; it counts for nothing."""
    REFUSED = "refused"
    """What we sent is at fault: every backend would say the same."""


VERDICTS: dict[grpc.StatusCode, Verdict] = {
    grpc.StatusCode.OK: Verdict.ACCEPT,
    # the server is going down, or a proxy gave up
    grpc.StatusCode.CANCELLED: Verdict.ELSEWHERE,
    grpc.StatusCode.UNKNOWN: Verdict.ELSEWHERE,
    grpc.StatusCode.INVALID_ARGUMENT: Verdict.REFUSED,
    grpc.StatusCode.DEADLINE_EXCEEDED: Verdict.ELSEWHERE,
    # a replica that has not loaded the model yet; it must not make a dead letter
    grpc.StatusCode.NOT_FOUND: Verdict.ELSEWHERE,
    grpc.StatusCode.ALREADY_EXISTS: Verdict.REFUSED,
    # a proxy or a wrong port: the operator's fault, not the image's
    grpc.StatusCode.PERMISSION_DENIED: Verdict.ELSEWHERE,
    grpc.StatusCode.UNAUTHENTICATED: Verdict.ELSEWHERE,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Verdict.BUSY,
    grpc.StatusCode.FAILED_PRECONDITION: Verdict.ELSEWHERE,
    grpc.StatusCode.ABORTED: Verdict.ELSEWHERE,
    grpc.StatusCode.OUT_OF_RANGE: Verdict.REFUSED,
    grpc.StatusCode.UNIMPLEMENTED: Verdict.ELSEWHERE,
    grpc.StatusCode.INTERNAL: Verdict.ELSEWHERE,
    grpc.StatusCode.UNAVAILABLE: Verdict.ELSEWHERE,
    grpc.StatusCode.DATA_LOSS: Verdict.ELSEWHERE,
}
"""Every status of gRPC. Whatever does not speak about the request itself says nothing
about the image, so it never ends a job."""


# ---------------------------------------------------------------- health


@dataclass(frozen=True, kw_only=True)
class HealthPolicy:
    """When a backend is left out, and for how long."""

    failures: int = 3
    """In a row, without an answer in between."""
    base_seconds: float = 0.5
    """Until the first probe; doubled after each probe that fails."""
    cap_seconds: float = 15.0


@dataclass(frozen=True, kw_only=True)
class Health:
    """What is known of a backend.

    A new one is out until a probe says that it serves the model: a replica that resolves
    but has not loaded yet would otherwise attract every request by failing fastest.
    """

    out: bool = True
    failures: int = 0
    ejections: int = 0
    """In a row, without an answer in between."""
    probe_at: float = 0.0
    """Seconds on the caller's clock; meaningful while `out`."""


def after_answer(health: Health) -> Health:
    """It answered: all is forgotten. A late answer does not bring an ejected one back."""
    return replace(health, failures=0, ejections=health.ejections if health.out else 0)


def after_failure(health: Health, *, now: float, policy: HealthPolicy) -> Health:
    """It failed; after enough failures in a row it is left out until a probe succeeds."""
    failures = health.failures + 1
    if health.out or failures < policy.failures:
        return replace(health, failures=failures)
    ejections = health.ejections + 1
    wait = _wait(ejections, policy)
    return Health(out=True, failures=failures, ejections=ejections, probe_at=now + wait)


def after_probe(health: Health, *, serves: bool, now: float, policy: HealthPolicy) -> Health:
    """A probe of one that is out. When it serves again it is on parole: the next failure
    leaves it out at once, for longer than before."""
    if serves:
        failures = policy.failures - 1 if health.ejections else 0
        return Health(out=False, failures=failures, ejections=health.ejections)
    ejections = health.ejections + 1
    return replace(health, ejections=ejections, probe_at=now + _wait(ejections, policy))


def _wait(ejections: int, policy: HealthPolicy) -> float:
    return min(policy.base_seconds * 2.0 ** min(ejections - 1, 30), policy.cap_seconds)


# ---------------------------------------------------------------- choice


@dataclass(frozen=True, kw_only=True)
class Load:
    """What the choice depends on. `latency` is a moving average of seconds per request in
    flight, None while nobody knows."""

    in_flight: int
    limit: int
    out: bool
    latency: float | None = None


SIMILAR = 2.0
"""Backends within this factor of the fastest count as equally fast."""
UNNOTICED_SECONDS = 0.05
"""So do those that are slower by no more than this: with answers in milliseconds, one slow moment
is many times the others, and would send every request elsewhere until it is forgotten."""


def choose(loads: Sequence[Load], *, turn: int, avoid: Collection[int] = ()) -> int | None:
    """The index of the backend for the next request; None when none has room.

    Fewest requests in flight: a Service balances connections, this balances requests.
    Equals take turns. A request at a backend that is noticeably slower than the fastest
    counts as several (its factor over what still counts as equally fast), so that a slow
    one is used when the fast ones are busy and never holds a request that a fast one
    would have answered by then. `avoid` are those that this request has tried already.
    """
    known = [load.latency for load in loads if not load.out and load.latency]
    fastest = min(known, default=None)
    costs = {
        index: (load.in_flight + 1) * _slowness(load, fastest)
        for index, load in enumerate(loads)
        if not load.out and load.in_flight < load.limit and index not in avoid
    }
    if not costs:
        return None
    least = min(costs.values())
    cheapest = [index for index, cost in costs.items() if cost == least]
    return cheapest[turn % len(cheapest)]


def _slowness(load: Load, fastest: float | None) -> float:
    if not load.latency or not fastest:
        return 1.0
    return max(1.0, load.latency / max(fastest * SIMILAR, fastest + UNNOTICED_SECONDS))


WEIGHT = 0.2
"""Of the newest answer in the moving average."""
HALF_LIFE_SECONDS = 10.0
"""A backend that is not asked is believed to become faster, so that it gets its chance."""


def smoothed(average: float | None, seconds: float) -> float:
    """The moving average with another answer."""
    return seconds if average is None else average + WEIGHT * (seconds - average)


def faded(average: float | None, idle_seconds: float) -> float | None:
    """The moving average after a time without answers."""
    if average is None:
        return None
    return float(average * 0.5 ** (max(idle_seconds, 0.0) / HALF_LIFE_SECONDS))
