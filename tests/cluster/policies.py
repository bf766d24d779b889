"""NetworkPolicies, carried out by the boards.

As Kubernetes has it: a pod that some policy selects for a direction is closed in that direction
but for the union of what those policies allow; both ends have to agree; answers pass. A refused
packet is answered, so that nobody waits for a time-out, and it is listed; TCP by a reset, because
the kernel sends messages of ICMP only so often.
The boards themselves reach every pod (probes, port-forward), and pods reach the boards only
where a policy says so. An ipBlock never means a pod.

What a pod sends to a balancer that keeps its address is judged behind the balancer, where the
pod is known that it goes to: policies are asked after a Service's address was translated.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from tests.cluster.network import (
    BOARDS,
    BOARDS_IN_THE_HOSPITAL,
    JUDGED_BEHIND_THE_BALANCER,
    NAME_SERVER,
    PODS,
    Network,
)
from tests.cluster.supported import Object, Unsupported, require
from tests.conftest import require_program
from tests.unit.network_policies import concerns, selects

_SPEC = {"podSelector": "", "policyTypes": "", "ingress": "", "egress": ""}
_PEER = {"ipBlock": "", "podSelector": "", "namespaceSelector": ""}
_PORT = {"protocol": "", "port": "", "endPort": ""}


class Member(Protocol):
    """A pod, as far as a policy looks at it."""

    @property
    def labels(self) -> Mapping[str, str]: ...

    @property
    def address(self) -> str: ...

    @property
    def namespace(self) -> str:
        """Of Kubernetes."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """A pod that is no more than that."""

    labels: Mapping[str, str]
    address: str
    namespace: str = "dicomnode"


class Denied(NamedTuple):
    """A connection that was not let through."""

    source: str
    target: str
    protocol: str
    port: int


DNS = Known(labels={"k8s-app": "kube-dns"}, address=NAME_SERVER, namespace="kube-system")
"""The name server, as the pods of CoreDNS are called."""


class Policies:
    """The policies among some objects. A context manager: at its end everything passes again."""

    def __init__(self, network: Network, objects: Iterable[Object]) -> None:
        self._network = network
        self._policies = [each for each in objects if each["kind"] == "NetworkPolicy"]
        for policy in self._policies:
            require(policy["spec"], _SPEC, f"NetworkPolicy {policy['metadata']['name']}")
        self._chains: list[str] = []
        require_program("nft")
        network.filter(network.hub, _TABLE)

    def __enter__(self) -> Policies:
        return self

    def __exit__(self, *_: object) -> None:
        self._network.filter(self._network.hub, "delete table ip policies\n")

    def apply(self, pods: Iterable[Member]) -> None:
        """Who is there now. Whatever was let through before goes on."""
        members: list[Member] = [DNS, *pods]
        chains: dict[str, list[str]] = {}
        leads: dict[str, list[str]] = {"Egress": [], "Ingress": []}
        for pod, (direction, lead) in itertools.product(members, leads.items()):
            concerned = [
                each
                for each in self._policies
                if concerns(each, direction, pod.namespace, pod.labels)
            ]
            if concerned:
                name = f"{direction}-{pod.address}".replace(".", "-").lower()
                allowed = [rule for each in concerned for rule in _rules(each, direction, members)]
                chains[name] = [*(f"{rule} return" for rule in allowed), "goto refused"]
                lead.append(f"{pod.address} : jump {name}")
        self._network.filter(self._network.hub, self._replaced(chains, leads))
        self._chains = list(chains)

    def denied(self) -> dict[Denied, int]:
        """How many packets of TCP and UDP were refused until now."""
        command = ("--json", "list", "set", "ip", "policies", "denied")
        said = self._network.inside(self._network.hub, require_program("nft"), *command)
        (found,) = [each["set"] for each in json.loads(said)["nftables"] if "set" in each]
        return {
            Denied(*each["elem"]["val"]["concat"]): each["elem"]["counter"]["packets"]
            for each in found.get("elem", [])
        }

    def _replaced(self, chains: dict[str, list[str]], leads: dict[str, list[str]]) -> str:
        """All rules anew, from one moment on; what was refused stays listed."""
        lines = ["flush table ip policies"]
        lines += [f"delete chain ip policies {name}" for name in self._chains]
        lines.append(_RULES)
        lines += [f"add chain ip policies {name}" for name in chains]
        for name, rules in chains.items():
            lines += [f"add rule ip policies {name} {rule}" for rule in rules]
        for field, lead in zip(("saddr", "daddr"), leads.values(), strict=True):
            if lead:
                lines.append(f"add rule ip policies judged ip {field} vmap {{ {', '.join(lead)} }}")
        return "\n".join(lines) + "\n"


_TABLE = """table ip policies {
    set denied {
        type ipv4_addr . ipv4_addr . inet_proto . inet_service
        size 65535
        flags dynamic
        counter
    }
    chain judged { }
    chain refused { }
    chain forward { type filter hook forward priority 0; }
    chain input { type filter hook input priority 0; }
}
"""
_RULES = f"""add rule ip policies forward jump judged
add rule ip policies input jump judged
add rule ip policies refused meta l4proto {{ tcp, udp }} update @denied {{ ip saddr . ip daddr . meta l4proto . th dport }}
add rule ip policies refused meta l4proto tcp reject with tcp reset
add rule ip policies refused reject with icmp type port-unreachable
add rule ip policies judged ct state established,related accept
add rule ip policies judged meta mark {JUDGED_BEHIND_THE_BALANCER} accept
add rule ip policies judged ip saddr {{ {BOARDS}, {BOARDS_IN_THE_HOSPITAL} }} accept"""  # noqa: E501


def _rules(policy: Object, direction: str, pods: list[Member]) -> Iterator[str]:
    """What nftables has to match for the policy to let a packet pass."""
    key, peers, field = (
        ("egress", "to", "daddr") if direction == "Egress" else ("ingress", "from", "saddr")
    )
    for rule in policy["spec"].get(key, []):
        require(rule, {peers: "", "ports": ""}, f"NetworkPolicy {policy['metadata']['name']}")
        ends = [_peer(each, policy, field, pods) for each in rule.get(peers, [])] or [""]
        ports = [_port(each, policy) for each in rule.get("ports", [])] or [""]
        for end, port in itertools.product(ends, ports):
            if end is not None:
                yield f"{end} {port}"


def _peer(described: Object, policy: Object, field: str, pods: list[Member]) -> str | None:
    """None where there is no such pod."""
    require(described, _PEER, f"NetworkPolicy {policy['metadata']['name']}")
    if "ipBlock" in described:
        block = described["ipBlock"]
        excepted = ", ".join([PODS, *block.get("except", [])])
        return f"ip {field} {block['cidr']} ip {field} != {{ {excepted} }}"
    found = [each.address for each in pods if _means(described, policy, each)]
    return f"ip {field} {{ {', '.join(sorted(found))} }}" if found else None


def _means(described: Object, policy: Object, pod: Member) -> bool:
    own = {"matchLabels": {_NAME: policy["metadata"]["namespace"]}}
    namespace = described.get("namespaceSelector", own)
    return selects(namespace, {_NAME: pod.namespace}) and selects(
        described.get("podSelector", {}), pod.labels
    )


_NAME = "kubernetes.io/metadata.name"


def _port(described: Object, policy: Object) -> str:
    where = f"NetworkPolicy {policy['metadata']['name']}"
    require(described, _PORT, where)
    protocol = described.get("protocol", "TCP").lower()
    first = described.get("port")
    if isinstance(first, str):
        raise Unsupported(f"{where}: the port {first!r} by its name")
    if first is None:
        return f"meta l4proto {protocol}"
    return f"{protocol} dport {first}-{described.get('endPort', first)}"
