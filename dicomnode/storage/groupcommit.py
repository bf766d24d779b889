"""Many waiting writers, one fsync.

SQLite has one writer at a time, and with `synchronous=FULL` a commit costs an fsync.
Whoever gets the turn carries out everybody's waiting work in one transaction and commits
once; when one of them fails, all are rolled back and carried out one by one. There is no
extra thread: a lone writer pays nothing.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Engine

from dicomnode.errors import StorageUnavailable

T = TypeVar("T")

MAXIMUM_BATCH = 64
"""Writers that share one commit; more would make the first one wait too long."""


class _Request(Generic[T]):
    def __init__(self, work: Callable[[Connection], T]) -> None:
        self.work = work
        self.result: T | None = None
        self.error: BaseException | None = None
        self.done = False
        self.leads = False
        """Its thread is to lead the next batch."""
        self.turn = threading.Lock()
        """Held until it is done or leads: waking by a bare lock costs a fifth of an Event."""
        self.turn.acquire()


class GroupCommit:
    """Runs `work(connection)` of any thread; returns its result once it is committed.

    The error of work that raises goes to its own caller and touches nobody else. Work may
    run twice: when a shared transaction fails, each one is tried again by itself, so it
    must do nothing but read and write the connection that it is given.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._mutex = threading.Lock()
        self._waiting: deque[_Request[Any]] = deque()
        """Never longer than there are threads: each waits for its own request. While
        somebody leads, the leadership goes to the first one here, in order of arrival."""
        self._led = False
        self._connection: Connection | None = None
        """Of whoever leads. It is kept, because fetching one from the pool and giving it
        back costs as much as the statements of an instance; never after an error."""

    def __call__(self, work: Callable[[Connection], T]) -> T:
        request = _Request(work)
        with self._mutex:
            self._waiting.append(request)
            leads, self._led = not self._led, True
        if not leads:
            self._await_turn(request)
        if not request.done:
            self._lead()
        if request.error is not None:
            raise request.error
        return request.result  # type: ignore[return-value]

    def close(self) -> None:
        """Close the connection. Called when nobody writes any more; who does all the same
        opens another one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _await_turn(self, request: _Request[Any]) -> None:
        try:
            request.turn.acquire()
        except BaseException:  # interrupted: the others must not wait for this thread
            with self._mutex:
                if request in self._waiting:
                    self._waiting.remove(request)
                if request.leads:
                    self._pass_on()
            raise

    def _lead(self) -> None:
        with self._mutex:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAXIMUM_BATCH))]
            for request in batch:
                request.leads = False
        try:
            self._serve(batch)
        finally:
            with self._mutex:
                self._pass_on()
            for request in batch:
                if not request.done:
                    request.error = StorageUnavailable(
                        "the write was interrupted before its commit; try again"
                    )
                    request.done = True
                request.turn.release()

    def _pass_on(self) -> None:
        if self._waiting:
            self._waiting[0].leads = True
            self._waiting[0].turn.release()
        else:
            self._led = False

    def _serve(self, batch: list[_Request[Any]]) -> None:
        if len(batch) > 1 and self._together(batch):
            return
        for request in batch:
            self._alone(request)

    def _together(self, batch: list[_Request[Any]]) -> bool:
        """One transaction for all; False when any of them, or the commit, fails."""
        try:
            with self._transaction() as connection:
                for request in batch:
                    request.result = request.work(connection)
        except Exception:  # noqa: BLE001 - each one is tried again alone and meets it itself
            return False
        for request in batch:
            request.done = True
        return True

    def _alone(self, request: _Request[Any]) -> None:
        request.error = None
        try:
            with self._transaction() as connection:
                request.result = request.work(connection)
        except Exception as error:  # noqa: BLE001 - raised to its own caller
            request.error = error
        request.done = True

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        connection = self._connection
        if connection is None:
            connection = self._connection = self._engine.connect()
        try:
            with connection.begin():
                yield connection
        except BaseException:
            self.close()
            raise
