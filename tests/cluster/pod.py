"""A pod as its manifest says it, run as a process of this machine.

What Kubernetes promises the container is given, or refused here by an `Unsupported`:

* its own network namespace with an address, its host name, the cluster's name server;
* its own process ids: ending the first ends all;
* what `tests.cluster.container` says of its files, user, rights and environment;
* an orderly end: preStop, the image's stop signal, and after the grace period a kill.

Only the container is started again in place: the pod keeps its address and its volumes.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.cluster.container import Container
from tests.cluster.network import Network
from tests.cluster.supported import Object, Unsupported, require_pod
from tests.cluster.volumes import Volumes
from tests.conftest import require_program

__all__ = ["Object", "Pod", "Unsupported", "Volumes"]

_GRACE_SECONDS = 30
"""Kubernetes' default."""


class Pod:
    """One container's process, started by the constructor."""

    def __init__(
        self,
        manifest: Object,
        *,
        network: Network,
        volumes: Volumes,
        folder: Path,
        environment: dict[str, str] | None = None,
        named: bool = True,
        attached: Callable[[Pod], None] = lambda _: None,
    ) -> None:
        """Without `named` somebody else says when its name is known. `attached` is called when
        it has an address, and before its container starts."""
        self.manifest = manifest
        metadata, spec = manifest["metadata"], manifest["spec"]
        self.name: str = metadata["name"]
        require_pod(spec, self.name)
        self.namespace: str = metadata["namespace"]
        self.labels: dict[str, str] = metadata.get("labels", {})
        self.host_name: str = spec.get("hostname", self.name)
        self._network, self._folder = network, folder
        folder.mkdir(parents=True)
        self.log = folder / "log"
        self.machine = network.attach()
        self.address = self.machine.address
        (container,) = spec["containers"]
        self.container = Container(
            container,
            pod=manifest,
            address=self.address,
            volumes=volumes,
            more_environment=environment or {},
        )
        if named and "subdomain" in spec:
            service = f"{spec['subdomain']}.{self.namespace}.svc.cluster.local"
            network.name(f"{self.host_name}.{service}", self.address)
            network.name(service, self.address)
        attached(self)
        self.restarts = -1
        self._ending_since: float | None = None
        self._signalled = False
        self.start()

    def start(self) -> None:
        """Start the container, again after it has ended."""
        self.restarts += 1
        script = self._folder / "start"
        etc = {
            "resolv.conf": self._network.resolv_conf(self.namespace),
            "hosts": f"127.0.0.1 localhost\n{self.address} {self.host_name}\n",
            "hostname": f"{self.host_name}\n",
        }
        root, files = self._folder / "root", self._folder / "files"
        script.write_text(self.container.script(self.host_name, root, files, etc))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._isolated(script),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={},
                start_new_session=True,
            )

    def wait(self, seconds: float) -> int:
        """The exit code, as Kubernetes would give it (137 after a kill -9)."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(
                f"{self.name} did not end within {seconds} s:\n{self.said()}"
            ) from None
        return code if code >= 0 else 128 - code

    def running(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """kill -9 of the container, as the kernel's OOM killer or a power cut would."""
        if self.running():
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)

    def remove(self) -> None:
        """The pod is gone, and its address with it."""
        self.kill()
        self.machine.detach()

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    # An orderly end -------------------------------------------------------------------------

    @property
    def ending(self) -> bool:
        """Asked to end: no Service names it any more."""
        return self._ending_since is not None

    def end(self) -> None:
        """What `kubectl delete pod` does; `go_on_ending` carries it out."""
        if self._ending_since is None:
            self._ending_since = time.monotonic()

    def go_on_ending(self) -> bool:
        """The next step that is due. True when the container has ended."""
        if not self.running():
            return True
        assert self._ending_since is not None
        spent = time.monotonic() - self._ending_since
        grace = self.manifest["spec"].get("terminationGracePeriodSeconds", _GRACE_SECONDS)
        if spent >= grace:
            self.kill()
        elif not self._signalled and spent >= self._pre_stop_seconds():
            os.kill(self.first_process(), self.container.image.stop_signal)
            self._signalled = True
        return not self.running()

    def _pre_stop_seconds(self) -> float:
        match self.container.manifest.get("lifecycle", {}):
            case {"preStop": {"sleep": {"seconds": seconds}}}:
                return float(seconds)
            case {"preStop": handler}:
                raise Unsupported(f"preStop {handler}")
        return 0.0

    # Inside ---------------------------------------------------------------------------------

    def first_process(self) -> int:
        """The number that the container's process 1 has outside."""
        parent = self.process.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        assert children, f"{self.name} has no process"
        return int(children[0])

    def run(self, *command: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """What `kubectl exec` does."""
        entered = ("--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd")
        return subprocess.run(
            [
                *(require_program("nsenter"), f"--target={self.first_process()}", *entered),
                *self.container.as_its_user(list(command)),
            ],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            stdin=subprocess.DEVNULL,
            env={},
        )

    def _isolated(self, script: Path) -> list[str]:
        """A shell as root in namespaces of its own; the script gives up what is not due."""
        namespaces = ("--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child=SIGKILL")
        return [
            *(require_program("ip"), "netns", "exec", self.machine.namespace),
            *(require_program("unshare"), *namespaces, "--propagation", "private"),
            *("/bin/sh", "-eu", str(script)),
        ]
