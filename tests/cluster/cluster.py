"""A running cluster: the control plane in one thread, and what a person does with it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from tests.acceptance.node import until
from tests.cluster import namespaces
from tests.cluster.boards import Board
from tests.cluster.control import ControlPlane
from tests.cluster.job import Job
from tests.cluster.network import Network
from tests.cluster.pod import Pod
from tests.cluster.supported import Object
from trainer.submit import Manifests

T = TypeVar("T")

HURRY = 5.0
"""Periods of probes, and waits before a container is started again, are a fifth of what the
manifests and Kubernetes say. Time-outs, thresholds, preStop and grace periods are not."""
_STEP_SECONDS = 0.1
_PROBERS = 8


class Cluster:
    """Runs what the objects say. A context manager: at its end nothing of it is left."""

    def __init__(
        self,
        objects: Iterable[Object],
        *,
        network: Network,
        folder: Path,
        boards: Sequence[Board],
        secrets: dict[str, dict[str, str]] | None = None,
        changed: Callable[[list[Pod]], None] | None = None,
        hurry: float = HURRY,
    ) -> None:
        """`secrets` are those that the operator makes by hand. `changed` is told who is there
        whenever a pod comes or goes, before it is started or named."""
        self.network, self._folder = network, folder
        self._control = ControlPlane(
            objects,
            network=network,
            folder=folder,
            boards=boards,
            secrets=secrets or {},
            changed=changed or (lambda _: None),
            hurry=hurry,
        )
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self.failure: Exception | None = None
        """Why the control plane has ended; `until` raises it."""
        self._thread = threading.Thread(target=self._run, name="control-plane")

    def __enter__(self) -> Cluster:
        try:
            self._control.open()
        except BaseException:
            self._control.clear()
            raise
        self._probes = namespaces.pool(self.network.hub, _PROBERS, "probe")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._probes.shutdown(cancel_futures=True)
        self._control.clear()

    # What there is ----------------------------------------------------------------------------

    @property
    def left_out(self) -> list[str]:
        """What of the manifests does not run here, a line each with the reason."""
        return self._control.left_out

    @property
    def pending(self) -> dict[str, str]:
        """Workloads whose next pod no board has room for, and why."""
        return self._control.pending

    @property
    def claims(self) -> dict[str, Path]:
        """The folders behind the claims."""
        return self._control.volumes.claims

    def pods(self, owner: str) -> list[Pod]:
        """Of a workload, without those that are ending."""
        with self._lock:
            return self._control.pods(owner)

    def ready(self, owner: str) -> list[Pod]:
        """Those that may get requests."""
        with self._lock:
            return self._control.ready(owner)

    def board(self, pod: Pod) -> str:
        with self._lock:
            return self._control.board(pod)

    def address(self, service: str) -> str:
        """Of a Service that has one."""
        return self._control.services[service].address

    def said(self) -> str:
        """The logs of all pods, as evidence."""
        return "\n".join(f"--- {pod.name}\n{pod.said()[-3000:]}" for pod in self._control.every_pod)

    # What a person does -----------------------------------------------------------------------

    def until(self, satisfied: Callable[[], T], *, seconds: float, what: str) -> T:
        """Wait as `until` does; pods without a board and their logs are the evidence."""

        def asked() -> T:
            if self.failure is not None:
                raise AssertionError("the control plane has ended") from self.failure
            return satisfied()

        try:
            answer: T = until(asked, seconds=seconds, what=what)
        except AssertionError as error:
            evidence = f"pending: {self._control.pending}\n{self.said()}"
            raise AssertionError(f"{error}\n{evidence}") from error
        return answer

    def await_ready(self, owner: str, *, seconds: float = 120) -> list[Pod]:
        """Until as many pods are ready as there are replicas."""
        expected = self._control.workloads[owner].replicas
        return self.until(
            lambda: len(found := self.ready(owner)) == expected and found,
            seconds=seconds,
            what=f"{expected} ready pods of {owner}",
        )

    def scale(self, owner: str, replicas: int) -> None:
        """`kubectl scale`."""
        with self._lock:
            self._control.workloads[owner].replicas = replicas

    def add_board(self, board: Board) -> None:
        with self._lock:
            self._control.boards.append(board)

    def kill(self, pod: Pod) -> None:
        """Gone at once, as with its machine. Its controller makes another."""
        with self._lock:
            pod.kill()
            self._control.remove(pod)

    def delete(self, pod: Pod) -> None:
        """`kubectl delete pod`: an orderly end. Its controller makes another."""
        with self._lock:
            pod.end()

    def inside(self, function: Callable[[], T]) -> T:
        """A function of the test with the sockets of a machine of the cluster."""
        return namespaces.inside(self.network.hub, function)

    def job(self, manifests: Manifests) -> Job:
        """`kubectl apply` of what `trainer submit --render` prints: a context manager."""
        with self._lock:
            self._control.volumes.config_maps[manifests.name] = manifests.config_map["data"]
            self._control.add_service(manifests.service)
        return Job(manifests.job, runner=_JobRunner(self._control, self._lock, manifests.name))

    # The thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stop.wait(_STEP_SECONDS):
                with self._lock:
                    self._control.step(time.monotonic(), self._probes)
        except Exception as error:  # noqa: BLE001 - `until` raises it again, in the test's thread
            self.failure = error


class _JobRunner:
    """Starts the pods of one Job on the boards."""

    def __init__(self, control: ControlPlane, lock: threading.RLock, name: str) -> None:
        self._control, self._lock, self._name = control, lock, name

    def start(self, manifest: Object, environment: dict[str, str]) -> Pod:
        with self._lock:
            pod = self._control.place_of_job(manifest, self._name, environment)
        assert pod is not None, f"{self._name} waits: {self._control.pending[self._name]}"
        return pod

    def remove(self, pod: Pod) -> None:
        with self._lock:
            self._control.remove(pod)
