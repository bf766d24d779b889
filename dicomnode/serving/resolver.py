"""Which addresses the configured targets stand for."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

DNS_SCHEME = "dns:///"

Lookup = Callable[[str, int], list[str]]
"""All IP addresses of a name. Raises OSError."""


@dataclass(frozen=True, order=True)
class Address:
    """One backend: `host` is an IP address, or a name that gRPC resolves itself."""

    host: str
    port: int

    def __str__(self) -> str:
        """As in logs and metric labels: `10.0.0.5:8500`, `[::1]:8500`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def target(self) -> str:
        """As gRPC wants it: an IP address must not be taken for a name."""
        try:
            version = ipaddress.ip_address(self.host).version
        except ValueError:
            return f"dns:///{self.host}:{self.port}"
        return f"ipv{version}:{self}"


def getaddrinfo(name: str, port: int) -> list[str]:
    """Every A and AAAA record of a name, in no order. Raises OSError."""
    found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return sorted({str(entry[4][0]) for entry in found})


class Resolver:
    """Turns targets (`host:port`, `dns:///name:port`) into addresses.

    A name that cannot be looked up keeps the addresses it had: a resolver that is away
    for a moment must not take the model servers with it.
    """

    def __init__(self, targets: Sequence[str], *, lookup: Lookup = getaddrinfo) -> None:
        self._lookup = lookup
        self._fixed = [_split(target) for target in targets if not target.startswith(DNS_SCHEME)]
        self._names = [
            _split(target.removeprefix(DNS_SCHEME))
            for target in targets
            if target.startswith(DNS_SCHEME)
        ]
        self._known: dict[Address, list[Address]] = {}
        self.errors: dict[str, str] = {}
        """By name: why its last look-up failed."""

    @property
    def changes(self) -> bool:
        """Whether there is anything to look up again."""
        return bool(self._names)

    def resolve(self) -> list[Address]:
        """All addresses now, each once, in the order of the targets. Blocks for DNS."""
        addresses = list(self._fixed)
        for name in self._names:
            try:
                hosts = self._lookup(name.host, name.port)
            except OSError as error:
                self.errors[name.host] = str(error)
            else:
                self.errors.pop(name.host, None)
                self._known[name] = [Address(host, name.port) for host in hosts]
            addresses += self._known.get(name, [])
        return list(dict.fromkeys(addresses))


def _split(target: str) -> Address:
    host, _, port = target.rpartition(":")
    return Address(host.strip("[]"), int(port))
