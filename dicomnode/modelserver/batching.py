"""Requests that wait for the processor at the same time run as one.

One runner thread per loaded version. An idle runner takes a request at once; while it is
busy others queue up and become the next batch, so batches grow with the load and cost an
unloaded server nothing. After a run that had companions the runner waits up to
`wait_seconds` for the same number again.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np

from dicomnode.modelserver.errors import RequestError
from dicomnode.modelserver.signatures import Arrays

Run = Callable[[str, Arrays], Arrays]


@dataclass(kw_only=True)
class _Task:
    signature: str
    inputs: Arrays
    size: int | None
    """Items along the first axis; None: must run alone."""
    answer: Future[Arrays] = field(default_factory=Future)

    @property
    def kind(self) -> tuple[Any, ...]:
        """Tasks of one kind can be joined."""
        shapes = ((name, array.dtype.str, array.shape[1:]) for name, array in self.inputs.items())
        return (self.signature, *sorted(shapes))


class Batcher:
    """Runs requests on one thread, several at a time.

    `run` is called on that thread only. At most `limit` requests wait; more are refused
    with UNAVAILABLE, which tells a client to ask another replica.
    """

    def __init__(
        self, run: Run, *, maximum: int, wait_seconds: float, limit: int, name: str
    ) -> None:
        self._run = run
        self._maximum = maximum
        self._wait_seconds = wait_seconds
        self._limit = limit
        self._queue: deque[_Task] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._last_tasks = 1
        self._thread = threading.Thread(target=self._serve, name=f"run-{name}", daemon=True)
        self._thread.start()

    def submit(
        self, signature: str, inputs: Arrays, *, batchable: bool, timeout: float | None
    ) -> Arrays:
        """The outputs for these inputs. Raises `RequestError`."""
        task = _Task(signature=signature, inputs=inputs, size=_size(inputs) if batchable else None)
        with self._changed:
            if self._closed:
                raise RequestError(grpc.StatusCode.UNAVAILABLE, "the version is being unloaded")
            if len(self._queue) >= self._limit:
                raise RequestError(
                    grpc.StatusCode.UNAVAILABLE,
                    f"the queue of this model is full ({self._limit} requests wait);"
                    " ask another replica or later",
                )
            self._queue.append(task)
            self._changed.notify()
        try:
            return task.answer.result(timeout)
        except FutureTimeout as error:
            task.answer.cancel()
            raise RequestError(
                grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline passed before an answer was ready"
            ) from error

    def close(self) -> None:
        """Answer what waits, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _serve(self) -> None:
        while batch := self._next_batch():
            live = [task for task in batch if task.answer.set_running_or_notify_cancel()]
            if live:
                self._last_tasks = len(live)
                self._answer(live)

    def _next_batch(self) -> list[_Task]:
        """Blocks until there is work; empty when closed and nothing waits."""
        with self._changed:
            while not self._queue and not self._closed:
                self._changed.wait()
            if not self._queue:
                return []
            self._await_companions()
            return self._take()

    def _await_companions(self) -> None:
        expected = min(self._last_tasks, self._maximum)
        deadline = time.monotonic() + self._wait_seconds
        while len(self._queue) < expected and not self._closed:
            left = deadline - time.monotonic()
            if left <= 0:
                return
            self._changed.wait(left)

    def _take(self) -> list[_Task]:
        first = self._queue.popleft()
        if first.size is None:
            return [first]
        batch, total, kind = [first], first.size, first.kind
        kept: deque[_Task] = deque()
        while self._queue:
            task = self._queue.popleft()
            fits = task.size is not None and total + task.size <= self._maximum
            if fits and task.kind == kind:
                batch.append(task)
                total += task.size or 0
            else:
                kept.append(task)
        self._queue = kept
        return batch

    def _answer(self, tasks: list[_Task]) -> None:
        if len(tasks) > 1 and self._answer_together(tasks):
            return
        for task in tasks:
            try:
                outputs = self._run(task.signature, task.inputs)
            except Exception as error:  # noqa: BLE001 - carried to the request that caused it
                task.answer.set_exception(error)
            else:
                task.answer.set_result(outputs)

    def _answer_together(self, tasks: list[_Task]) -> bool:
        """False when the joined run failed: then each runs alone, and only the guilty fails."""
        joined = {
            name: np.concatenate([task.inputs[name] for task in tasks]) for name in tasks[0].inputs
        }
        try:
            outputs = self._run(tasks[0].signature, joined)
        except Exception:  # noqa: BLE001 - each request is run again and gets its own error
            return False
        sizes = [task.size or 0 for task in tasks]
        total = sum(sizes)
        if any(not array.ndim or array.shape[0] != total for array in outputs.values()):
            return False
        start = 0
        for task, size in zip(tasks, sizes, strict=True):
            part = slice(start, start + size)
            task.answer.set_result({name: array[part] for name, array in outputs.items()})
            start += size
        return True


def _size(inputs: Arrays) -> int | None:
    sizes = {array.shape[0] if array.ndim else None for array in inputs.values()}
    return sizes.pop() if len(sizes) == 1 else None
