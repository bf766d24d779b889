"""How the commands tell what they do: for people, or as JSON lines."""

from __future__ import annotations

import enum
import json
import sys
import time
from collections.abc import Callable
from typing import Any, Final

Tell = Callable[[str, dict[str, Any]], None]

_QUIET_SECONDS: Final = 10.0
"""Between two lines about one phase when standard output is no terminal."""


class Format(enum.Enum):
    """How progress is told."""

    HUMAN = "human"
    JSON = "json"


def teller(progress: Format) -> Tell:
    """A progress callback: event and facts to one line on standard output.

    The event `progress` (phase, done, total, eta_seconds) moves a bar on a terminal; a file
    gets a line of it every ten seconds, JSON every one of them.
    """
    if progress is Format.JSON:
        return _tell_json
    return _Human()


def _tell_json(event: str, facts: dict[str, Any]) -> None:
    _write(json.dumps({"event": event, **facts}))


class _Human:
    """Lines with the seconds since the start, and a bar while a phase lasts."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._quiet_until = self._started + _QUIET_SECONDS
        self._bar: Any | None = None
        self._task: Any = None

    def __call__(self, event: str, facts: dict[str, Any]) -> None:
        if event == "progress":
            self._move(**facts)
            return
        self._end_bar()
        self._line(event, facts)

    def _line(self, event: str, facts: dict[str, Any]) -> None:
        told = "  ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items())
        _write(f"{time.monotonic() - self._started:6.1f} s  {event:<10} {told}")

    def _move(self, phase: str, done: int, total: int, eta_seconds: float | None) -> None:
        if sys.stdout.isatty():
            self._move_bar(phase, done, total)
        elif time.monotonic() >= self._quiet_until:
            self._quiet_until = time.monotonic() + _QUIET_SECONDS
            left = "" if eta_seconds is None else f", {eta_seconds:.0f} s left"
            self._line(phase, {"done": f"{done} of {total}{left}"})

    def _move_bar(self, phase: str, done: int, total: int) -> None:
        if self._bar is None:
            from rich import progress as bars

            self._bar = bars.Progress(
                bars.TextColumn("          {task.description:<10}"),
                bars.BarColumn(),
                bars.MofNCompleteColumn(),
                bars.TimeRemainingColumn(),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(phase, total=total)
        self._bar.update(self._task, completed=done)
        if done >= total:
            self._end_bar()

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
