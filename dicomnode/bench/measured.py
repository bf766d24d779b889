"""What one run came to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

QUANTILES = (0.5, 0.9, 0.95, 0.99)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One number of backends."""

    backends: int
    studies: int
    seconds: float
    latencies: tuple[float, ...]
    """Seconds, ascending; one per study."""
    shares: tuple[float, ...] = ()
    """Which part of the requests each backend answered."""

    @property
    def per_second(self) -> float:
        return self.studies / self.seconds

    def quantile(self, part: float) -> float:
        """The smallest latency that `part` of all do not exceed."""
        return self.latencies[max(0, math.ceil(part * len(self.latencies)) - 1)]


def speed_up(runs: Sequence[Measured], run: Measured) -> float | None:
    """Throughput over k times that of one backend; None when one was not measured."""
    one = next((other for other in runs if other.backends == 1), None)
    return None if one is None else run.per_second / (run.backends * one.per_second)
