"""What NetworkPolicies allow, as https://kubernetes.io/docs/concepts/services-networking/network-policies/
says it. Pure: objects in, yes or no out.

Pods are known by their labels and addresses outside by their number; a selector of pods never
matches an address, and an ipBlock never a pod. What the pods' own machine does (probes,
port-forward) is not asked: no policy can forbid it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True)
class Pod:
    """A pod, as far as a policy looks at it."""

    name: str
    labels: Mapping[str, str]
    namespace: str = "dicomnode"
    ports: Mapping[str, int] = field(default_factory=dict)
    """Named container ports."""


@dataclass(frozen=True)
class Outside:
    """An address that is no pod's."""

    name: str
    address: str


End = Pod | Outside


def allows(
    policies: Sequence[Object], source: End, target: End, port: int, protocol: str = "TCP"
) -> bool:
    """Whether a connection gets out of its source and into its target."""
    leaves = _passes(policies, source, target, target, port, protocol, "Egress")
    return leaves and _passes(policies, target, source, target, port, protocol, "Ingress")


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector matches; an empty one matches everything."""
    exact = selector.get("matchLabels", {})
    if any(labels.get(key) != value for key, value in exact.items()):
        return False
    return all(_expressed(each, labels) for each in selector.get("matchExpressions", []))


def _passes(
    policies: Sequence[Object],
    pod: End,
    peer: End,
    target: End,
    port: int,
    protocol: str,
    direction: str,
) -> bool:
    if isinstance(pod, Outside):
        return True
    rules, peers = ("egress", "to") if direction == "Egress" else ("ingress", "from")
    concerned = [each for each in policies if concerns(each, direction, pod.namespace, pod.labels)]
    return not concerned or any(
        _peer(rule.get(peers), peer, policy) and _port(rule.get("ports"), target, port, protocol)
        for policy in concerned
        for rule in policy["spec"].get(rules, [])
    )


def concerns(policy: Object, direction: str, namespace: str, labels: Mapping[str, str]) -> bool:
    """Whether the policy selects a pod of this namespace and these labels for a direction."""
    spec = policy["spec"]
    implied = ["Ingress", *(["Egress"] if "egress" in spec else [])]
    return (
        policy["metadata"]["namespace"] == namespace
        and direction in spec.get("policyTypes", implied)
        and selects(spec["podSelector"], labels)
    )


def _peer(peers: Iterable[Object] | None, peer: End, policy: Object) -> bool:
    """No list, or an empty one, is everybody."""
    known = list(peers or [])
    return not known or any(_is(each, peer, policy) for each in known)


def _is(described: Object, peer: End, policy: Object) -> bool:
    if "ipBlock" in described:
        block = described["ipBlock"]
        return (
            isinstance(peer, Outside)
            and _within(peer.address, block["cidr"])
            and not any(_within(peer.address, each) for each in block.get("except", []))
        )
    if isinstance(peer, Outside):
        return False
    if "namespaceSelector" in described:
        namespace = {"kubernetes.io/metadata.name": peer.namespace}
        if not selects(described["namespaceSelector"], namespace):
            return False
    elif peer.namespace != policy["metadata"]["namespace"]:
        return False
    return selects(described.get("podSelector", {}), peer.labels)


def _within(address: str, network: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(network)


def _port(ports: Iterable[Object] | None, target: End, port: int, protocol: str) -> bool:
    known = list(ports or [])
    return not known or any(_matches(each, target, port, protocol) for each in known)


def _matches(described: Object, target: End, port: int, protocol: str) -> bool:
    if described.get("protocol", "TCP") != protocol:
        return False
    first = described.get("port")
    if first is None:
        return True
    if isinstance(first, str):
        return isinstance(target, Pod) and target.ports.get(first) == port
    return first <= port <= described.get("endPort", first)


def _expressed(expression: Object, labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values", [])
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    raise ValueError(f"operator {expression['operator']!r} is not one of Kubernetes'")
