"""The controller of one Indexed Job: a pod per index, a new one for a failed one.

https://kubernetes.io/docs/concepts/workloads/controllers/job/ as far as a training uses it:
`completionMode: Indexed`, `backoffLimit`, `podFailurePolicy` on exit codes, one pod of an
index at a time. The back-off between tries is not waited for.
"""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from tests.cluster.network import Network
from tests.cluster.pod import Object, Pod, Unsupported, Volumes

INDEX = "batch.kubernetes.io/job-completion-index"


class Runner(Protocol):
    """Starts pods and takes them away."""

    def start(self, manifest: Object, environment: dict[str, str]) -> Pod: ...

    def remove(self, pod: Pod) -> None: ...


class Alone:
    """On a network without boards and Services: the pods name themselves."""

    def __init__(self, network: Network, volumes: Volumes, folder: Path) -> None:
        self._network, self._volumes, self._folder = network, volumes, folder

    def start(self, manifest: Object, environment: dict[str, str]) -> Pod:
        return Pod(
            manifest,
            network=self._network,
            volumes=self._volumes,
            folder=self._folder / manifest["metadata"]["name"],
            environment=environment,
        )

    def remove(self, pod: Pod) -> None:
        pod.remove()


class Job:
    """Runs what the manifest says. A context manager: at its end no pod is left."""

    def __init__(
        self,
        manifest: Object,
        *,
        runner: Runner,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.manifest, self._runner = manifest, runner
        self._more = environment
        self._spec = manifest["spec"]
        if self._spec.get("completionMode") != "Indexed":
            raise Unsupported("a Job that is not Indexed")
        if self._spec["parallelism"] < self._spec["completions"]:
            raise Unsupported("fewer pods at a time than there are indexes")
        self._tries = itertools.count(1)
        self.failures: list[tuple[int, int]] = []
        """(index, exit code) of every pod that failed, in order."""
        self.pods: dict[int, Pod] = {}
        """The newest pod of each index."""
        self.every_pod: list[Pod] = []

    def __enter__(self) -> Job:
        for index in range(self._spec["completions"]):
            self._start(index)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for pod in self.pods.values():
            self._runner.remove(pod)

    def wait(self, seconds: float) -> str:
        """`Complete`, or the reason why the Job failed."""
        end = time.monotonic() + seconds
        ended: dict[int, int] = {}
        while len(ended) < self._spec["completions"]:
            assert time.monotonic() < end, f"the Job did not end within {seconds} s\n{self.said()}"
            for index, pod in list(self.pods.items()):
                if index in ended or pod.running():
                    continue
                code = pod.wait(1)
                if code == 0:
                    ended[index] = code
                    continue
                self.failures.append((index, code))
                if self._is_final(code):
                    return "PodFailurePolicy"
                if len(self.failures) > self._spec["backoffLimit"]:
                    return "BackoffLimitExceeded"
                self._runner.remove(pod)
                self._start(index)
            time.sleep(0.05)
        return "Complete"

    def said(self) -> str:
        """The logs of all pods, as evidence."""
        return "\n".join(f"--- {pod.name}\n{pod.said()[-4000:]}" for pod in self.every_pod)

    def _start(self, index: int) -> None:
        job, template = self.manifest["metadata"], self._spec["template"]
        name = f"{job['name']}-{index}-{next(self._tries):05}"
        metadata = template.get("metadata", {})
        manifest: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                **metadata,
                "name": name,
                "namespace": job["namespace"],
                "annotations": {**metadata.get("annotations", {}), INDEX: str(index)},
            },
            "spec": {**template["spec"], "hostname": f"{job['name']}-{index}"},
        }
        pod = self._runner.start(
            manifest,
            {**(self._more or {}), "JOB_COMPLETION_INDEX": str(index)},
        )
        self.pods[index] = pod
        self.every_pod.append(pod)

    def _is_final(self, code: int) -> bool:
        rules = self._spec.get("podFailurePolicy", {}).get("rules", [])
        return any(
            rule["action"] == "FailJob"
            and code in rule.get("onExitCodes", {}).get("values", [])
            and rule["onExitCodes"]["operator"] == "In"
            for rule in rules
        )
