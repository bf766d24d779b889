"""What arrives from a peer, through one reusable buffer.

The buffer is all the memory that an association needs, whatever lengths a peer claims.
"""

from __future__ import annotations

from collections.abc import Callable

from dicomnode.dimse.peer_errors import PeerClosed

ReceiveInto = Callable[[memoryview], int]
"""Waits for bytes, puts them into the view and returns their number, 0 at the end."""

BUFFER_BYTES = 256 * 1024


class Inflow:
    """Takes bytes from `receive_into`. Views that it returns are valid until the next call."""

    def __init__(self, receive_into: ReceiveInto, buffer_bytes: int = BUFFER_BYTES) -> None:
        self._receive_into = receive_into
        self._view = memoryview(bytearray(buffer_bytes))
        self._start = 0
        self._end = 0

    def take(self, count: int) -> memoryview:
        """Exactly `count` bytes, at most the buffer's size. Raises `PeerClosed`."""
        if self._end - self._start < count:
            self._fill(count)
        start = self._start
        self._start = start + count
        return self._view[start : self._start]

    def take_some(self, at_most: int) -> memoryview:
        """At least one byte, at most `at_most` (which is positive). Raises `PeerClosed`."""
        if self._start == self._end:
            self._fill(1)
        start = self._start
        self._start = min(self._end, start + at_most)
        return self._view[start : self._start]

    def peek(self) -> None:
        """Wait until there is something to take. Raises `PeerClosed`."""
        if self._start == self._end:
            self._fill(1)

    def _fill(self, count: int) -> None:
        pending = self._end - self._start
        if self._start:
            self._view[:pending] = self._view[self._start : self._end]
            self._start, self._end = 0, pending
        while self._end < count:
            received = self._receive_into(self._view[self._end :])
            if received == 0:
                raise PeerClosed("the connection was closed by the peer")
            self._end += received
