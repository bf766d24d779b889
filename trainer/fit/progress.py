"""How a run tells what it does: named events with their facts."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

Progress = Callable[[str, dict[str, Any]], None]
"""Called with the name of an event and its facts. `progress` comes often: a phase with `done`,
`total` and `eta_seconds`; the others once per step of a run."""

_SECONDS: Final = 0.5


class Meter:
    """Counts a phase and tells of it, twice a second at most."""

    def __init__(self, progress: Progress, phase: str) -> None:
        self.done = 0
        self._progress, self._phase = progress, phase
        self._started = self._told = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        self.done = done
        now = time.monotonic()
        if done < total and now - self._told < _SECONDS:
            return
        self._told = now
        left = (now - self._started) / done * (total - done) if done else None
        self._progress(
            "progress",
            {
                "phase": self._phase,
                "done": done,
                "total": total,
                "eta_seconds": None if left is None else round(left, 1),
            },
        )
