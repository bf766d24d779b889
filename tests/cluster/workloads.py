"""Deployments and StatefulSets: as many pods as the manifest says, a new one for a lost one.

A template does not change while a cluster runs here, so there is no roll-out; `scale` and lost
pods are what changes. Pods of a StatefulSet have numbers, and claims of their own.
"""

from __future__ import annotations

import copy

from tests.cluster.supported import DEPLOYMENT, STATEFUL_SET, Object, require


class Workload:
    """The controller of one Deployment or StatefulSet."""

    def __init__(self, manifest: Object) -> None:
        self.manifest = manifest
        self.name: str = manifest["metadata"]["name"]
        self.kind: str = manifest["kind"]
        spec = manifest["spec"]
        known = DEPLOYMENT if self.kind == "Deployment" else STATEFUL_SET
        require(spec, known, f"{self.kind} {self.name}")
        self.replicas: int = spec.get("replicas", 1)
        self._number = 1

    @property
    def claims(self) -> list[Object]:
        """Of every replica, for a StatefulSet."""
        return list(self.manifest["spec"].get("volumeClaimTemplates", []))

    @property
    def image(self) -> str:
        return str(self.manifest["spec"]["template"]["spec"]["containers"][0]["image"])

    def wanted(self, present: dict[str, bool]) -> Object | None:
        """The manifest of the next pod, if one is missing. `present`: its pods, and if ready.

        A pod that is ending is not among them for a Deployment, and is for a StatefulSet, whose
        names are given out again.
        """
        if self.kind == "Deployment":
            if len(present) >= self.replicas:
                return None
            return self._pod(f"{self.name}-{self._number:05}")
        for number in range(self.replicas):
            name = f"{self.name}-{number}"
            if name not in present:
                return self._pod(name)
            if not present[name]:
                return None  # one after the other, each when the one before is ready
        return None

    def placed(self) -> None:
        """The pod that was wanted is there."""
        self._number += 1

    def surplus(self, present: dict[str, bool]) -> str | None:
        """The pod that has to go, if one has to: one that is not ready, else the newest."""
        if len(present) <= self.replicas:
            return None
        if self.kind == "StatefulSet":
            return f"{self.name}-{len(present) - 1}"
        return min(reversed(present), key=lambda name: present[name])

    def _pod(self, name: str) -> Object:
        template = copy.deepcopy(self.manifest["spec"]["template"])
        spec = template["spec"]
        if self.kind == "StatefulSet":
            spec["subdomain"] = self.manifest["spec"]["serviceName"]
            for claim in self.claims:
                volume = {
                    "name": claim["metadata"]["name"],
                    "persistentVolumeClaim": {"claimName": f"{claim['metadata']['name']}-{name}"},
                }
                spec.setdefault("volumes", []).append(volume)
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                **template["metadata"],
                "name": name,
                "namespace": self.manifest["metadata"]["namespace"],
            },
            "spec": spec,
        }
