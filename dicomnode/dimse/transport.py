"""One transport connection of the acceptor, with limits on what it waits for."""

from __future__ import annotations

import contextlib
import socket
import struct
import time

from dicomnode.dimse.peer_errors import PeerClosed, PeerSilent

_LEAST_WAIT_SECONDS = 0.001
"""SO_RCVTIMEO of 0 would mean for ever."""


class Transport:
    """Sends and receives; raises `PeerClosed` and `PeerSilent`.

    One thread calls it; `shut` is for any thread.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._deadline = 0.0
        self._timeout = 0.0

    def wait_at_most(self, seconds: float) -> None:
        """The next PDU has to be complete in this time. The kernel's limit bounds one wait,
        the deadline a peer that drips, so silence lasts at most twice as long."""
        self._deadline = time.monotonic() + seconds
        if seconds != self._timeout:
            self._timeout = seconds
            self._limit_waits(seconds)

    def receive_into(self, view: memoryview) -> int:
        if time.monotonic() > self._deadline:
            raise PeerSilent(f"no complete PDU within {self._timeout:g} s")
        try:
            received = self._socket.recv_into(view)
            # a sender with Nagle's algorithm waits for our acknowledgement of its command
            # before it sends the data set; the kernel would delay that by 40 ms
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            return received
        except BlockingIOError as error:
            raise PeerSilent(f"nothing arrived within {self._timeout:g} s") from error
        except OSError as error:
            raise PeerClosed(f"the connection broke: {error.strerror}") from error

    def send(self, pdu: bytes) -> None:
        try:
            self._socket.sendall(pdu)
        except BlockingIOError as error:
            raise PeerSilent(f"the peer read nothing within {self._timeout:g} s") from error
        except OSError as error:
            raise PeerClosed(f"the connection broke: {error.strerror}") from error

    def shut(self, how: int) -> None:
        with contextlib.suppress(OSError):  # not connected any more: that is what was wanted
            self._socket.shutdown(how)

    def linger(self, seconds: float) -> None:
        """Sta13: read and drop until the peer closes, for closing over unread bytes would
        reset the connection and take our last PDU with it."""
        self.shut(socket.SHUT_WR)
        deadline = time.monotonic() + seconds
        with contextlib.suppress(OSError):  # whichever way the connection ends is an end
            while (left := deadline - time.monotonic()) > 0:
                self._limit_waits(left)
                if not self._socket.recv(65536):
                    return

    def close(self) -> None:
        self._socket.close()

    def _limit_waits(self, seconds: float) -> None:
        """The kernel's own limit (socket(7)): with that of `settimeout` each call would be a
        poll and a call, and the thread would give up the interpreter twice."""
        whole, fraction = divmod(max(seconds, _LEAST_WAIT_SECONDS), 1)
        limit = struct.pack("@ll", int(whole), int(fraction * 1e6))
        self._socket.settimeout(None)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
