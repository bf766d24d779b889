"""Who speaks, or tries to speak, to an address outside the cluster and the hospital.

Every namespace counts what it sends to an address that is none of `INSIDE`, by address: the
internet, but also multicast, broadcast, link-local addresses and IPv6.

Without a default route the kernel refuses to send such a packet at all, and a counter would
never see that somebody wanted to. With `attempts` every namespace so gets a default route for
IPv4 and IPv6 into a wire that ends nowhere; what is tried then becomes a packet, is counted, and
is lost. Without `attempts` the routes are those of the boards: none. Names that somebody asked
for are the name server's to tell: `Network.outside_names`.

Frames that a program makes itself (AF_PACKET) and the kernel's ARP are not seen; pods have no
right to the former.
"""

from __future__ import annotations

import ipaddress
import json
from collections import Counter

from tests.cluster.network import INSIDE, Network
from tests.conftest import require_program

_COUNTING = f"""table inet outside {{
    set seen {{
        type ipv4_addr
        size 65535
        flags dynamic
        counter
    }}
    set seen6 {{
        type ipv6_addr
        size 65535
        flags dynamic
        counter
    }}
    chain counted {{
        ip daddr != {{ 127.0.0.0/8, {", ".join(INSIDE)} }} update @seen {{ ip daddr }}
        ip6 daddr != ::1 update @seen6 {{ ip6 daddr }}
    }}
    chain sent {{
        type filter hook output priority 0
        jump counted
    }}
    chain passed_on {{
        type filter hook forward priority -20
        jump counted
    }}
}}
"""
_WIRE = "link add sink type veth peer name nowhere\n"
_KERNEL = {
    # the end that is sent into knows IPv6, and says nothing of its own accord
    "net.ipv6.conf.sink.addr_gen_mode": 1,
    "net.ipv6.conf.sink.router_solicitations": 0,
    "net.ipv6.conf.sink.accept_dad": 0,
    "net.ipv6.conf.sink.disable_ipv6": 0,
}
_ROUTES = """link set nowhere up
link set sink multicast off arp off up
addr add 192.0.0.8/32 dev sink
route add default dev sink src 192.0.0.8
addr add 100::1/128 dev sink nodad
route add ::/0 dev sink
"""


class Outside:
    """Counters in every namespace there is and will be. A context manager."""

    def __init__(self, network: Network, *, attempts: bool) -> None:
        self._network, self._attempts = network, attempts
        self._gone: dict[str, Counter[str]] = {}

    def __enter__(self) -> Outside:
        require_program("nft")
        for namespace in self._network.namespaces:
            self._watch(namespace)
        self._network.joined.append(self._watch)
        self._network.leaving.append(self._keep)
        return self

    def __exit__(self, *_: object) -> None:
        """The counters go with their namespaces."""
        self._network.joined.remove(self._watch)
        self._network.leaving.remove(self._keep)

    def seen(self) -> dict[str, dict[str, int]]:
        """Namespace -> address -> packets, also of those that are gone. Nobody: empty."""
        found = {name: Counter(counts) for name, counts in self._gone.items()}
        for namespace in self._network.namespaces:
            found[namespace] = self._counted(namespace)
        return {name: dict(counts) for name, counts in found.items() if counts}

    def said(self) -> str:
        """The same, a line each, for a person."""
        return "\n".join(
            f"{namespace} -> {address} ({kind(address)}): {packets} packets"
            for namespace, counts in self.seen().items()
            for address, packets in sorted(counts.items())
        )

    def _watch(self, namespace: str) -> None:
        self._network.filter(namespace, _COUNTING)
        if self._attempts:
            self._network.configure(namespace, _WIRE)
            self._network.kernel(namespace, _KERNEL)
            self._network.configure(namespace, _ROUTES)

    def _keep(self, namespace: str) -> None:
        self._gone[namespace] = self._counted(namespace)

    def _counted(self, namespace: str) -> Counter[str]:
        nft = require_program("nft")
        command = ("--json", "list", "table", "inet", "outside")
        said = json.loads(self._network.inside(namespace, nft, *command))
        return Counter(
            {
                each["elem"]["val"]: each["elem"]["counter"]["packets"]
                for part in said["nftables"]
                for each in part.get("set", {}).get("elem", [])
            }
        )


def kind(address: str) -> str:
    """What an address that is not ours may be."""
    parsed = ipaddress.ip_address(address)
    family = f"IPv{parsed.version}"
    if parsed.is_multicast:
        return f"{family} multicast"
    if parsed.is_link_local:
        return f"{family} link-local"
    if address == "255.255.255.255":
        return f"{family} broadcast"
    return f"{family} elsewhere"
