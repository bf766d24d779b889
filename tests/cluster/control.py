"""The control plane: what is wanted, what is there, and the next step from one to the other.

One `step` is a round of the controllers, the scheduler, the kubelets and the endpoints, in that
order. It has no thread and no clock of its own.
"""

from __future__ import annotations

import base64
import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from pathlib import Path

from tests.cluster import image
from tests.cluster.boards import Board, Placed, choose
from tests.cluster.network import Network
from tests.cluster.pod import Pod
from tests.cluster.probes import Kubelet
from tests.cluster.services import Endpoints, Seen, Service
from tests.cluster.supported import Object, Unsupported
from tests.cluster.volumes import Volumes
from tests.cluster.workloads import Workload

LEFT_OUT = {
    "CronJob": "nothing waits for the first of the month",
    "Job": "run when the test wants it, by Cluster.job",
    "LimitRange": "no pod is without limits",
    "Namespace": "a name",
    "NetworkPolicy": "by tests.cluster.policies, where a test adds them",
    "PersistentVolume": "a claim is a folder",
    "PodDisruptionBudget": "no board is drained",
    "ResourceQuota": "there is no API server",
    "Role": "there is no API server",
    "RoleBinding": "there is no API server",
    "RuntimeClass": "there is no GPU",
    "ServiceAccount": "there is no API server",
    "StorageClass": "says who owns a claim's folder",
}
"""Kinds that are not carried out. One that is neither here nor carried out is refused."""
_NFS_OWNER = 10001
"""docs/operations/kubernetes.md: exports belong to 10001:10001."""


class ControlPlane:
    """Everything that runs. Whoever calls it sees to it that one call ends before the next."""

    def __init__(
        self,
        objects: Iterable[Object],
        *,
        network: Network,
        folder: Path,
        boards: Sequence[Board],
        secrets: dict[str, dict[str, str]],
        changed: Callable[[list[Pod]], None],
        hurry: float,
    ) -> None:
        self._network, self._folder, self._hurry = network, folder, hurry
        self._changed = changed
        self.boards = list(boards)
        self.volumes = Volumes(secrets=dict(secrets))
        self.workloads: dict[str, Workload] = {}
        self.services: dict[str, Endpoints] = {}
        self.left_out: list[str] = []
        self.pending: dict[str, str] = {}
        """Owners whose next pod no board has room for, and why."""
        self.every_pod: list[Pod] = []
        """Also those that are gone, for their logs."""
        self._kubelets: dict[str, Kubelet] = {}
        self._jobs: dict[str, Pod] = {}
        self._boards: dict[str, str] = {}
        self._owners: dict[str, str] = {}
        self._numbers = itertools.count(1)
        for each in objects:
            self._take(each)

    # What there is ----------------------------------------------------------------------------

    def pods(self, owner: str) -> list[Pod]:
        """Of a workload, without those that are ending."""
        return [each.pod for each in self._of(owner) if not each.pod.ending]

    def ready(self, owner: str) -> list[Pod]:
        """Those that may get requests."""
        return [each.pod for each in self._of(owner) if each.ready]

    def board(self, pod: Pod) -> str:
        return self._boards[pod.name]

    def all_pods(self) -> list[Pod]:
        """Also those of Jobs, and those that are ending."""
        return [*(each.pod for each in self._kubelets.values()), *self._jobs.values()]

    # What is done -----------------------------------------------------------------------------

    def open(self) -> None:
        """Services have their addresses before any pod asks for them."""
        for endpoints in self.services.values():
            endpoints.open()

    def step(self, now: float, probes: Executor) -> None:
        """One round."""
        for workload in self.workloads.values():
            self._control(workload)
        for kubelet in list(self._kubelets.values()):
            kubelet.step(now, probes)
            if kubelet.pod.ending and kubelet.pod.go_on_ending():
                self.remove(kubelet.pod)
        self.publish()

    def publish(self) -> None:
        """Names and balancers as the pods are now."""
        seen = [Seen(each.pod, each.ready) for each in self._kubelets.values()]
        seen += [Seen(pod, pod.running()) for pod in self._jobs.values()]
        for endpoints in self.services.values():
            endpoints.publish(seen)

    def place(self, manifest: Object, owner: str, environment: dict[str, str]) -> Pod | None:
        """Start a pod on a board that has room for it; None, with the reason in `pending`."""
        labels, spec = manifest["metadata"].get("labels", {}), manifest["spec"]
        placed = [
            Placed(board=self._boards[pod.name], labels=pod.labels, spec=pod.manifest["spec"])
            for pod in self.all_pods()
        ]
        board, reason = choose(self.boards, labels, spec, placed)
        if board is None:
            self.pending[owner] = reason
            return None
        self.pending.pop(owner, None)
        pod = Pod(
            manifest,
            network=self._network,
            volumes=self.volumes,
            folder=self._folder / "pods" / f"{manifest['metadata']['name']}-{next(self._numbers)}",
            environment=environment,
            named=False,
            attached=lambda pod: self._changed([*self.all_pods(), pod]),
        )
        self._boards[pod.name], self._owners[pod.name] = board, owner
        self.every_pod.append(pod)
        return pod

    def place_of_job(self, manifest: Object, job: str, environment: dict[str, str]) -> Pod | None:
        """A pod that nobody starts again and that has no probes."""
        pod = self.place(manifest, job, environment)
        if pod is not None:
            self._jobs[pod.name] = pod
            self.publish()
        return pod

    def remove(self, pod: Pod) -> None:
        """It is gone, with its address and its names."""
        self._kubelets.pop(pod.name, None)
        self._jobs.pop(pod.name, None)
        self.publish()
        pod.remove()
        self._changed(self.all_pods())

    def clear(self) -> None:
        """At the end: every pod, and what carries Services."""
        for pod in self.all_pods():
            pod.remove()
        self._kubelets.clear()
        self._jobs.clear()
        for endpoints in self.services.values():
            endpoints.close()

    def _of(self, owner: str) -> list[Kubelet]:
        return [each for each in self._kubelets.values() if self._owners[each.pod.name] == owner]

    def _control(self, workload: Workload) -> None:
        ordered = workload.kind == "StatefulSet"  # it waits for a name to be free again
        present = {
            each.pod.name: each.ready
            for each in self._of(workload.name)
            if ordered or not each.pod.ending
        }
        surplus = workload.surplus(present)
        if surplus is not None:
            self._kubelets[surplus].pod.end()
            return
        manifest = workload.wanted(present)
        if manifest is not None:
            pod = self.place(manifest, workload.name, {})
            if pod is not None:
                workload.placed()
                self._kubelets[pod.name] = Kubelet(pod, factor=self._hurry)

    # What is read -----------------------------------------------------------------------------

    def add_service(self, manifest: Object) -> None:
        service = Service(manifest)
        folder = self._folder / "services" / service.name
        self.services[service.name] = Endpoints(service, self._network, folder)

    def _take(self, made: Object) -> None:
        kind, name = made["kind"], made["metadata"]["name"]
        match kind:
            case "Deployment" | "StatefulSet":
                self._take_workload(Workload(made))
            case "Service":
                self.add_service(made)
            case "ConfigMap":
                self.volumes.config_maps[name] = made.get("data", {})
            case "Secret":
                data = made.get("data", {}).items()
                decoded = {key: base64.b64decode(value).decode() for key, value in data}
                self.volumes.secrets[name] = {**decoded, **made.get("stringData", {})}
            case "PersistentVolumeClaim":
                self._claim(name, made["spec"]["storageClassName"])
            case _ if kind in LEFT_OUT:
                self.left_out.append(f"{kind} {name}: {LEFT_OUT[kind]}")
            case _:
                raise Unsupported(f"{kind} {name}")

    def _take_workload(self, workload: Workload) -> None:
        reason = image.ABSENT.get(image.short(workload.image))
        if reason is not None:
            self.left_out.append(f"{workload.kind} {workload.name}: {reason}")
            return
        self.workloads[workload.name] = workload
        for claim in workload.claims:
            for number in range(workload.replicas):
                name = f"{claim['metadata']['name']}-{workload.name}-{number}"
                self._claim(name, claim["spec"]["storageClassName"])

    def _claim(self, name: str, storage_class: str) -> None:
        """A folder as the class hands it over: NFS exports have an owner, local-path has none."""
        folder = self._folder / "claims" / name
        folder.mkdir(parents=True)
        match storage_class:
            case "storage-nfs":
                os.chown(folder, _NFS_OWNER, _NFS_OWNER)
            case "local-path":
                folder.chmod(0o777)
            case _:
                raise Unsupported(f"claim {name}: StorageClass {storage_class}")
        self.volumes.claims[name] = folder
