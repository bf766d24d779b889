"""A connection that waits no longer than it was told."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from dicomnode.dimse import transport as transport_module
from dicomnode.dimse.peer_errors import PeerClosed, PeerSilent
from dicomnode.dimse.transport import Transport

Pair = tuple[Transport, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    transport = Transport(ours)
    with peer:
        yield transport, peer
    transport.close()


def test_a_peer_that_says_nothing_is_silent(pair: Pair) -> None:
    transport, _ = pair
    transport.wait_at_most(0.05)
    with pytest.raises(PeerSilent, match=r"nothing arrived within 0\.05 s"):
        transport.receive_into(memoryview(bytearray(10)))


def test_hardly_any_time_is_not_for_ever(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the kernel 0 is for ever; a clock that stands still leaves it to the kernel."""
    monkeypatch.setattr(transport_module, "time", SimpleNamespace(monotonic=lambda: 0.0))
    transport, _ = pair
    transport.wait_at_most(1e-9)
    with pytest.raises(PeerSilent, match="nothing arrived"):
        transport.receive_into(memoryview(bytearray(10)))


def test_a_peer_that_drips_is_silent_once_its_time_is_over(pair: Pair) -> None:
    transport, peer = pair
    transport.wait_at_most(0.2)
    with pytest.raises(PeerSilent, match="no complete PDU"):
        while True:
            peer.sendall(b"x")
            transport.receive_into(memoryview(bytearray(10)))


def test_a_peer_that_reads_nothing_is_silent(pair: Pair) -> None:
    transport, _ = pair
    transport.wait_at_most(0.05)
    with pytest.raises(PeerSilent, match=r"the peer read nothing within 0\.05 s"):
        transport.send(bytes(64 * 1024 * 1024))


def test_a_peer_that_is_gone_has_closed(pair: Pair) -> None:
    transport, peer = pair
    transport.wait_at_most(5.0)
    peer.close()
    assert transport.receive_into(memoryview(bytearray(10))) == 0
    with pytest.raises(PeerClosed):
        while True:
            transport.send(bytes(64 * 1024))


def test_lingering_ends_with_the_peer_or_with_the_time(pair: Pair) -> None:
    transport, peer = pair
    peer.sendall(bytes(1000))
    transport.linger(0.05)
    peer.close()
    transport.linger(600.0)
