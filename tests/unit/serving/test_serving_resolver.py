"""Targets and what they stand for."""

from __future__ import annotations

import socket

import pytest

from dicomnode.serving.resolver import Address, Resolver


def test_a_host_and_port_is_one_backend_and_never_looked_up() -> None:
    def lookup(name: str, port: int) -> list[str]:
        raise AssertionError("looked up")

    resolver = Resolver(["10.0.0.5:8500", "10.0.0.6:8500", "10.0.0.5:8500"], lookup=lookup)
    assert not resolver.changes
    assert [str(address) for address in resolver.resolve()] == ["10.0.0.5:8500", "10.0.0.6:8500"]


def test_every_address_of_a_name_is_a_backend() -> None:
    resolver = Resolver(["dns:///inference:8500"], lookup=lambda *_: ["10.0.0.5", "fd00::1"])
    assert resolver.changes
    assert resolver.resolve() == [Address("10.0.0.5", 8500), Address("fd00::1", 8500)]


def test_a_resolver_that_is_away_keeps_the_addresses() -> None:
    answers: list[list[str] | OSError] = [["10.0.0.5"], socket.gaierror(-3, "try again"), []]

    def lookup(name: str, port: int) -> list[str]:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    resolver = Resolver(["dns:///inference:8500"], lookup=lookup)
    first = resolver.resolve()
    assert resolver.resolve() == first
    assert "try again" in resolver.errors["inference"]
    assert resolver.resolve() == []
    assert resolver.errors == {}


def test_localhost_is_found_by_the_real_resolver() -> None:
    hosts = {address.host for address in Resolver(["dns:///localhost:8500"]).resolve()}
    assert hosts & {"127.0.0.1", "::1"}


@pytest.mark.parametrize(
    ("address", "target", "name"),
    [
        (Address("10.0.0.5", 8500), "ipv4:10.0.0.5:8500", "10.0.0.5:8500"),
        (Address("fd00::1", 8500), "ipv6:[fd00::1]:8500", "[fd00::1]:8500"),
        (Address("board-1", 8500), "dns:///board-1:8500", "board-1:8500"),
    ],
)
def test_an_address_is_written_as_grpc_wants_it(address: Address, target: str, name: str) -> None:
    assert address.target == target
    assert str(address) == name
