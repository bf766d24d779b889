"""Threads that look at the cluster and put what they see into one queue.

They survive what is normal for a watch: its end, its expiry (410), a dropped connection, an
API server that restarts. What is not normal, they report, and end.
"""

from __future__ import annotations

import datetime
import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from trainer.submit.errors import ClusterError, Gone, Unreachable

PATIENCE_SECONDS: Final = 300.0
"""How long the API server may be away (it restarts, a switch does) before we give up."""
SILENCE_SECONDS: Final = 60.0
"""After so long without a line the log is asked for again, as its connection may be dead."""
_OVERLAP_SECONDS: Final = 10
_BACK_OFF: Final = (0.5, 1.0, 2.0, 4.0, 8.0)

Object = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """All objects of a kind ("job", "pods"), by name."""

    kind: str
    objects: dict[str, Object]


@dataclass(frozen=True)
class Line:
    """A line of a pod's log."""

    pod: str
    text: str


@dataclass(frozen=True)
class Ended:
    """A thread ended; with an error when it gave up."""

    what: str
    error: ClusterError | None = None


Inbox = queue.SimpleQueue[Seen | Line | Ended]


class Watcher(threading.Thread):
    """Puts `Seen` whenever an object of its kind changes."""

    def __init__(
        self,
        kind: str,
        listed: Callable[[], Object],
        watched: Callable[[str], Iterator[Object]],
        inbox: Inbox,
        stop: threading.Event,
    ) -> None:
        super().__init__(name=f"watch-{kind}", daemon=True)
        self._kind, self._listed, self._watched = kind, listed, watched
        self._inbox, self._stop_asked = inbox, stop
        self._patience = Patience(stop)

    def run(self) -> None:
        """Until told to stop, refused, or out of patience."""
        try:
            while not self._stop_asked.is_set():
                try:
                    self._once()
                except Unreachable as error:
                    self._patience.lose(error)
        except ClusterError as error:
            self._inbox.put(Ended(self._kind, error))

    def _once(self) -> None:
        """List, then watch from there until that place has expired."""
        answer = self._listed()
        self._patience.restore()
        objects = {each["metadata"]["name"]: each for each in answer.get("items", [])}
        version = str(answer.get("metadata", {}).get("resourceVersion", ""))
        self._inbox.put(Seen(self._kind, dict(objects)))
        while not self._stop_asked.is_set():
            try:
                for event in self._watched(version):
                    self._patience.restore()
                    changed = event["object"]
                    version = str(changed["metadata"].get("resourceVersion", version))
                    if event["type"] == "BOOKMARK":
                        continue
                    name = changed["metadata"]["name"]
                    if event["type"] == "DELETED":
                        objects.pop(name, None)
                    else:
                        objects[name] = changed
                    self._inbox.put(Seen(self._kind, dict(objects)))
                    if self._stop_asked.is_set():
                        return
            except Gone:
                # the list tells what was missed
                self._patience.lose(None)
                return


class Patience:
    """Waits longer from try to try, and gives up in the end."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop_asked = stop
        self.restore()

    def restore(self) -> None:
        """It works again."""
        self._tries = 0
        self._end = time.monotonic() + PATIENCE_SECONDS

    def lose(self, error: ClusterError | None) -> None:
        """Wait before another try; raises `error` when there were enough."""
        if error is not None and time.monotonic() >= self._end:
            raise error
        self._stop_asked.wait(_BACK_OFF[min(self._tries, len(_BACK_OFF) - 1)])
        self._tries += 1


class LogFollower(threading.Thread):
    """Puts each `Line` of a pod's log once, however often the connection breaks."""

    def __init__(
        self,
        pod: str,
        read: Callable[[int | None], Iterator[str]],
        ended: Callable[[], bool],
        inbox: Inbox,
        stop: threading.Event,
    ) -> None:
        super().__init__(name=f"log-{pod}", daemon=True)
        self._pod, self._read, self._ended = pod, read, ended
        self._inbox, self._stop_asked = inbox, stop
        self._patience = Patience(stop)
        self._heard: float | None = None
        self._newest, self._at_newest = "", 0

    def run(self) -> None:
        """Until the program has ended and said everything."""
        try:
            self._follow()
        except Gone:
            self._inbox.put(Ended(self._pod))  # the pod was removed, with its log
        except ClusterError as error:
            self._inbox.put(Ended(self._pod, error))
        else:
            self._inbox.put(Ended(self._pod))

    def _follow(self) -> None:
        while not self._stop_asked.is_set():
            over = self._ended()  # asked first: what was said until then is read after it
            error = None
            try:
                self._read_on()
            except Unreachable as broken:
                error = broken
            else:
                if over:
                    return
            self._patience.lose(error)

    def _read_on(self) -> None:
        since = None
        if self._heard is not None:
            since = int(time.monotonic() - self._heard) + _OVERLAP_SECONDS
        repeated = 0  # lines of the newest time that this answer has shown again
        for line in self._read(since):
            stamp, _, text = line.partition(" ")
            if not _is_time(stamp):
                self._inbox.put(Line(self._pod, line))  # the server's own remark
                continue
            if stamp < self._newest:
                continue
            if stamp == self._newest:
                repeated += 1
                if repeated <= self._at_newest:
                    continue
            else:
                self._newest, repeated = stamp, 1
            self._at_newest = repeated
            self._heard = time.monotonic()
            self._patience.restore()
            self._inbox.put(Line(self._pod, text))


def _is_time(stamp: str) -> bool:
    try:
        datetime.datetime.fromisoformat(stamp[:19])
    except ValueError:
        return False
    return True
