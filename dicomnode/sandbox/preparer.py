"""`SandboxPreparer`: decoder processes for several worker threads."""

from __future__ import annotations

import queue
import threading
import time
from pathlib import Path

from dicomnode.errors import SandboxUnavailable, UndecodableImage
from dicomnode.findings import NotEvaluated, PreparedImage
from dicomnode.imaging.profiles import profile_named
from dicomnode.sandbox.decoder import DecoderProcess, Interrupted
from dicomnode.sandbox.protocol import Request

_TRIES = 3
"""A child may have ended for idleness just now, and the next be stopped from outside."""

_CLOSE_SECONDS = 2.0
_KILLED_SECONDS = 30.0


class _Slot:
    """Room for one child, started when first needed."""

    def __init__(self) -> None:
        self.process: DecoderProcess | None = None


class SandboxPreparer:
    """Fulfils `ports.Preparer` with one child process per slot.

    Thread-safe. A child is started by the first image that needs it, reused, replaced
    after a crash or a timeout, and gone after `idle_seconds`.
    """

    def __init__(
        self,
        *,
        slots: int = 2,
        memory_bytes: int = 1_500_000_000,
        timeout_seconds: float = 60.0,
        maximum_pixels: int = 100_000_000,
        idle_seconds: float = 30.0,
        wait_seconds: float = 120.0,
    ) -> None:
        """`slots` children at most; `memory_bytes` of address space for each; an image may
        take `timeout_seconds` and have `maximum_pixels`; a caller waits `wait_seconds` for
        a free slot."""
        self._memory_bytes = memory_bytes
        self._timeout_seconds = timeout_seconds
        self._maximum_pixels = maximum_pixels
        self._idle_seconds = idle_seconds
        self._wait_seconds = wait_seconds
        # last in, first out: with little to do one child works and the others go idle
        self._free: queue.LifoQueue[_Slot] = queue.LifoQueue(slots)
        self._slots = [_Slot() for _ in range(slots)]
        self._closed = threading.Event()
        for slot in self._slots:
            self._free.put_nowait(slot)

    def prepare(self, path: Path, *, profile: str) -> PreparedImage | NotEvaluated:
        """Gate, decode, preprocess the instance at `path` by the named profile.

        Raises `UndecodableImage` (also for a crash, a timeout, exhausted memory, a missing
        file), `NotAnInstance`, `TransientError` when the storage fails to deliver the
        file, `SandboxUnavailable` when no child can be started or none gets free, and
        ValueError for an unknown profile.
        """
        request = Request(
            path=str(path.absolute()),
            profile=profile_named(profile).name,
            maximum_pixels=self._maximum_pixels,
        )
        slot = self._take()
        try:
            return self._prepare(slot, request)
        finally:
            self._give_back(slot)

    def close(self) -> None:
        """End all children; later calls are refused.

        An image that is being decoded gets a moment to finish; after it the child is
        killed and its caller gets `SandboxUnavailable`, so the job is tried again.
        """
        if self._closed.is_set():
            return
        self._closed.set()
        deadline = time.monotonic() + _CLOSE_SECONDS
        taken = []
        for _ in self._slots:
            try:
                slot = self._free.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                self._kill_all()
                slot = self._free.get(timeout=_KILLED_SECONDS)
            _stop(slot)
            taken.append(slot)
        for slot in taken:  # whoever waits for one wakes, and is refused
            self._free.put_nowait(slot)

    def _kill_all(self) -> None:
        for slot in self._slots:
            if slot.process is not None:
                slot.process.kill()

    def __enter__(self) -> SandboxPreparer:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def pids(self) -> list[int]:
        """The children that run now."""
        running = [slot.process for slot in self._slots]
        return [process.pid for process in running if process is not None and process.alive]

    def _prepare(self, slot: _Slot, request: Request) -> PreparedImage | NotEvaluated:
        for _ in range(_TRIES):
            if self._closed.is_set():
                raise SandboxUnavailable("the decoder is closed: the node is stopping")
            process = self._started(slot)
            try:
                return process.prepare(request)
            except Interrupted:
                _stop(slot)
            except UndecodableImage:
                if not process.alive:
                    _stop(slot)
                raise
        raise UndecodableImage(
            f"cannot decode an instance: its decoder process was stopped from outside {_TRIES} "
            "times, perhaps for want of memory; lower worker.decode_memory_bytes"
        )

    def _started(self, slot: _Slot) -> DecoderProcess:
        if slot.process is not None and not slot.process.alive:
            _stop(slot)
        if slot.process is None:
            slot.process = DecoderProcess(
                memory_bytes=self._memory_bytes,
                timeout_seconds=self._timeout_seconds,
                idle_seconds=self._idle_seconds,
            )
        return slot.process

    def _take(self) -> _Slot:
        try:
            return self._free.get(timeout=self._wait_seconds)
        except queue.Empty as error:
            raise SandboxUnavailable(
                f"all {len(self._slots)} decoder processes were busy for "
                f"{self._wait_seconds:g} s; raise worker.analysers or look for images that "
                "take very long"
            ) from error

    def _give_back(self, slot: _Slot) -> None:
        self._free.put_nowait(slot)


def _stop(slot: _Slot) -> None:
    if slot.process is not None:
        slot.process.stop()
        slot.process = None
