"""Probes and restarts: the kubelet's part.

httpGet and tcpSocket are asked from the switch's namespace, as the kubelet asks from the pod's
machine; exec runs inside the pod. Until the startup probe has answered once neither of the
others is asked. Periods are shortened by a factor that the cluster states; time-outs and
thresholds are the manifest's.
"""

from __future__ import annotations

import http.client
import socket
import subprocess
from concurrent.futures import Executor, Future

from tests.cluster.pod import Pod
from tests.cluster.supported import Object, Unsupported

_BACK_OFF_SECONDS, _BACK_OFF_LIMIT_SECONDS = 10.0, 300.0
"""Kubernetes' CrashLoopBackOff."""


class Probe:
    """One probe of one pod, asked again and again."""

    def __init__(self, manifest: Object, pod: Pod, factor: float) -> None:
        self._manifest, self._pod = manifest, pod
        self._period = manifest.get("periodSeconds", 10) / factor
        self._delay = manifest.get("initialDelaySeconds", 0) / factor
        self._timeout = manifest.get("timeoutSeconds", 1)
        self._threshold = manifest.get("failureThreshold", 3)
        self._asked: Future[bool] | None = None
        self._due: float | None = None
        self.failures = 0
        self.answered = False
        """The newest answer was good."""

    @property
    def failed(self) -> bool:
        """Often enough in a row."""
        return self.failures >= self._threshold

    def step(self, now: float, executor: Executor) -> None:
        """Take an answer, ask when it is time."""
        if self._due is None:
            self._due = now + self._delay
        if self._asked is not None and self._asked.done():
            self.answered = self._asked.result()
            self.failures = 0 if self.answered else self.failures + 1
            self._asked, self._due = None, now + self._period
        if self._asked is None and now >= self._due:
            self._asked = executor.submit(self._ask)

    def _ask(self) -> bool:
        match self._manifest:
            case {"httpGet": {"path": path, "port": port, **rest}} if not rest:
                return self._get(path, self._pod.container.port(port))
            case {"tcpSocket": {"port": port}}:
                return self._connect(self._pod.container.port(port))
            case {"exec": {"command": command}}:
                return self._run(command)
        raise Unsupported(f"probe {self._manifest}")

    def _get(self, path: str, port: int) -> bool:
        connection = http.client.HTTPConnection(self._pod.address, port, timeout=self._timeout)
        try:
            connection.request("GET", path, headers={"User-Agent": "kube-probe"})
            return 200 <= connection.getresponse().status < 400
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _connect(self, port: int) -> bool:
        try:
            socket.create_connection((self._pod.address, port), timeout=self._timeout).close()
        except OSError:
            return False
        return True

    def _run(self, command: list[str]) -> bool:
        if not self._pod.running():
            return False
        try:
            return self._pod.run(*command, seconds=self._timeout).returncode == 0
        except (subprocess.TimeoutExpired, OSError, AssertionError):
            return False  # too slow, or it ended between the two lines


class Kubelet:
    """Looks after one pod."""

    def __init__(self, pod: Pod, *, factor: float) -> None:
        self.pod, self._factor = pod, factor
        self._restart_at: float | None = None
        self._begin()

    @property
    def ready(self) -> bool:
        """May get requests."""
        return self._started and self.pod.running() and not self.pod.ending and self._is_ready

    def step(self, now: float, executor: Executor) -> None:
        """Probe what is due; start the container again when it has ended or is sick."""
        if self.pod.ending:
            return
        if not self.pod.running():
            self._start_again(now)
            return
        if not self._started:
            self._startup(now, executor)
            return
        if self._readiness is not None:
            self._readiness.step(now, executor)
            if self._readiness.answered:
                self._is_ready = True
            elif self._readiness.failed:
                self._is_ready = False
        if self._liveness is not None:
            self._liveness.step(now, executor)
            if self._liveness.failed:
                self.pod.kill()

    def _begin(self) -> None:
        self._startup_probe = self._probe("startupProbe")
        self._readiness = self._probe("readinessProbe")
        self._liveness = self._probe("livenessProbe")
        self._started = self._startup_probe is None
        self._is_ready = self._readiness is None

    def _probe(self, kind: str) -> Probe | None:
        manifest = self.pod.container.manifest.get(kind)
        return None if manifest is None else Probe(manifest, self.pod, self._factor)

    def _startup(self, now: float, executor: Executor) -> None:
        assert self._startup_probe is not None
        self._startup_probe.step(now, executor)
        if self._startup_probe.answered:
            self._started = True
        elif self._startup_probe.failed:
            self.pod.kill()

    def _start_again(self, now: float) -> None:
        """The first time at once, then after 10 s, 20 s and so on, shortened as the periods are."""
        if self._restart_at is None:
            often = self.pod.restarts
            wait = _BACK_OFF_SECONDS * 2 ** (often - 1) if often else 0.0
            self._restart_at = now + min(wait, _BACK_OFF_LIMIT_SECONDS) / self._factor
        if now >= self._restart_at:
            self._restart_at = None
            self.pod.start()
            self._begin()
