"""Services: who is behind a name or an address at the moment.

Only ready pods are, unless `publishNotReadyAddresses`; a pod that is ending is not. A headless
Service is its pods' addresses; every other one has an address of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.balancer import Backends, Carrier, carry
from tests.cluster.network import DOMAIN, Network
from tests.cluster.pod import Pod
from tests.cluster.supported import SERVICE, Object, require
from tests.unit.network_policies import selects


@dataclass(frozen=True)
class Seen:
    """A pod as the Services see it."""

    pod: Pod
    ready: bool


class Service:
    """One Service of the manifests."""

    def __init__(self, manifest: Object) -> None:
        self.manifest = manifest
        self.name: str = manifest["metadata"]["name"]
        self.namespace: str = manifest["metadata"]["namespace"]
        self._spec = manifest["spec"]
        require(self._spec, SERVICE, f"Service {self.name}")
        self.headless = self._spec.get("clusterIP") == "None"

    @property
    def domain(self) -> str:
        return f"{self.name}.{self.namespace}.{DOMAIN}"

    @property
    def ports(self) -> list[tuple[int, str | int]]:
        """Its own and the pod's, which may be a name."""
        return [
            (each["port"], each.get("targetPort", each["port"])) for each in self._spec["ports"]
        ]

    def selects(self, labels: dict[str, str]) -> bool:
        return selects({"matchLabels": self._spec["selector"]}, labels)

    def behind(self, pods: Iterable[Seen]) -> list[Pod]:
        """Who gets what is sent to it."""
        unready = self._spec.get("publishNotReadyAddresses", False)
        return [
            each.pod
            for each in pods
            if self.selects(each.pod.labels)
            and not each.pod.ending
            and (each.ready or (unready and each.pod.running()))
        ]


class Endpoints:
    """Carries a Service out: names by the name server, addresses by a `Carrier`."""

    def __init__(self, service: Service, network: Network, folder: Path) -> None:
        self.service, self._network, self._folder = service, network, folder
        self._carrier: Carrier | None = None
        self._backends: Backends | None = None

    @property
    def address(self) -> str:
        assert self._carrier is not None, f"Service {self.service.name} has no address"
        return self._carrier.address

    def open(self) -> None:
        """It has its address, and nobody is behind it."""
        if not self.service.headless:
            self._carrier = carry(self._network, self.service.manifest, self._folder)
            self._network.records(self.service.domain, {self._carrier.address})

    def publish(self, pods: Iterable[Seen]) -> None:
        """As the pods are now."""
        behind = self.service.behind(pods)
        if self._carrier is None:
            self._publish_names(behind)
            return
        backends = {port: self._listening(target, behind) for port, target in self.service.ports}
        if backends != self._backends:
            self._carrier.set_backends(backends)
            self._backends = backends

    def close(self) -> None:
        if self._carrier is not None:
            self._carrier.close()

    def _publish_names(self, behind: list[Pod]) -> None:
        self._network.records(self.service.domain, {pod.address for pod in behind})
        for pod in behind:
            if pod.manifest["spec"].get("subdomain") == self.service.name:
                own = f"{pod.host_name}.{self.service.domain}"
                self._network.records(own, {pod.address})

    def _listening(self, target: str | int, behind: list[Pod]) -> set[tuple[str, int]]:
        return {(pod.address, pod.container.port(target)) for pod in behind}
