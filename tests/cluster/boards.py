"""Which board a pod goes to: the scheduler's part.

Labels of `nodeSelector`, required anti-affinity by host, and room for the memory and the cores
that the containers ask for are obeyed; preferred anti-affinity and then the emptier board
decide among what is left. The boards are names: all pods run on this machine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.cluster.supported import Object, Unsupported, require
from tests.peers.manifests import bytes_of, cores_of
from tests.unit.network_policies import selects

_HOST = "kubernetes.io/hostname"


@dataclass(frozen=True, kw_only=True)
class Board:
    """A machine of the cluster."""

    name: str
    labels: dict[str, str] = field(default_factory=lambda: {"kubernetes.io/arch": "arm64"})
    memory: int = 2900 * 2**20
    """For pods: docs/operations/kubernetes.md, a Jetson Nano."""
    cores: float = 4.0


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A pod on its board."""

    board: str
    labels: dict[str, str]
    spec: Object


def choose(
    boards: Iterable[Board], labels: dict[str, str], spec: Object, placed: Iterable[Placed]
) -> tuple[str | None, str]:
    """The board for a pod, or none and why, as `kubectl describe pod` would say."""
    placed = list(placed)
    reasons, fit = [], []
    for board in boards:
        there = [each for each in placed if each.board == board.name]
        reason = _refusal(board, labels, spec, there)
        if reason:
            reasons.append(f"{board.name}: {reason}")
        else:
            fit.append((_unliked(spec, there), len(there), board.name))
    return (min(fit)[2] if fit else None), "; ".join(reasons)


def _refusal(board: Board, labels: dict[str, str], spec: Object, there: list[Placed]) -> str:
    if any(board.labels.get(k) != v for k, v in spec.get("nodeSelector", {}).items()):
        return "didn't match the node selector"
    if any(_repels(spec, each.labels) for each in there):
        return "didn't match pod anti-affinity rules"
    if any(_repels(each.spec, labels) for each in there):
        return "didn't satisfy existing pods anti-affinity rules"
    asked = [_asked(each) for each in [spec, *(each.spec for each in there)]]
    if sum(memory for memory, _ in asked) > board.memory:
        return "Insufficient memory"
    if sum(cores for _, cores in asked) > board.cores:
        return "Insufficient cpu"
    return ""


def _asked(spec: Object) -> tuple[int, float]:
    requests = [each.get("resources", {}).get("requests", {}) for each in spec["containers"]]
    memory = sum(bytes_of(str(each.get("memory", "0"))) for each in requests)
    return memory, sum(cores_of(str(each.get("cpu", "0"))) for each in requests)


def _repels(spec: Object, labels: dict[str, str]) -> bool:
    terms = _anti_affinity(spec).get("requiredDuringSchedulingIgnoredDuringExecution", [])
    return any(_matches(term, labels) for term in terms)


def _unliked(spec: Object, there: list[Placed]) -> int:
    wishes = _anti_affinity(spec).get("preferredDuringSchedulingIgnoredDuringExecution", [])
    return sum(
        wish["weight"]
        for wish in wishes
        for each in there
        if _matches(wish["podAffinityTerm"], each.labels)
    )


def _anti_affinity(spec: Object) -> Object:
    affinity = spec.get("affinity", {})
    require(affinity, {"podAntiAffinity": ""}, "affinity")
    return dict(affinity.get("podAntiAffinity", {}))


def _matches(term: Object, labels: dict[str, str]) -> bool:
    if term["topologyKey"] != _HOST:
        raise Unsupported(f"topologyKey {term['topologyKey']}")
    return selects(term["labelSelector"], labels)
