"""What the Job and its pods say. Pure: objects of the API in, facts and an outcome out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

Object = Mapping[str, Any]

INDEX: Final = "batch.kubernetes.io/job-completion-index"
REFUSED: Final = "refused: "
"""What `trainer retrain` puts before each reason of its gate, as its last words."""
_MESSAGE_LINES: Final = 20
_FAILED: Final = 1


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One pod of the Job. A worker that started again is several of these."""

    index: int
    pod: str
    created: str
    """ISO 8601."""
    phase: str
    """Pending, Running, Succeeded, Failed or Unknown."""
    started: bool
    """Its program runs, or ran."""
    trouble: str
    """Why it does not start, in the cluster's words; empty when nothing is wrong."""
    exit_code: int | None
    reason: str
    """Why it ended: Error, OOMKilled, Evicted, ...; empty while it runs."""
    last_lines: tuple[str, ...]
    """What it said last, once it has failed."""

    @property
    def ended(self) -> bool:
        """Its program will say nothing more."""
        return self.phase in ("Succeeded", "Failed")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How the Job ended."""

    succeeded: bool
    reason: str = ""
    message: str = ""


def workers(pods: Iterable[Object]) -> tuple[Worker, ...]:
    """By index, and of one index the oldest first."""
    found = [_worker(pod) for pod in pods]
    return tuple(sorted(found, key=lambda worker: (worker.index, worker.created, worker.pod)))


def counts(found: Iterable[Worker]) -> dict[str, int]:
    """How many workers are in each phase; of each index only the newest pod counts."""
    newest = {worker.index: worker for worker in found}
    phases = ("Pending", "Running", "Succeeded", "Failed")
    return {
        phase.lower(): number
        for phase in phases
        if (number := sum(worker.phase == phase for worker in newest.values()))
    }


def chief(found: Iterable[Worker]) -> Worker | None:
    """The newest pod of index 0 whose program has started."""
    started = [worker for worker in found if worker.index == 0 and worker.started]
    return started[-1] if started else None


def refusal(found: Iterable[Worker]) -> tuple[str, ...]:
    """The reasons for which a chief's gate kept the candidate; none when there was no refusal.

    They are in the pod's status, which stays when its log cannot be read.
    """
    return tuple(
        line.removeprefix(REFUSED)
        for worker in found
        if worker.index == 0 and worker.exit_code == _FAILED
        for line in worker.last_lines
        if line.startswith(REFUSED)
    )


def outcome(job: Object) -> Outcome | None:
    """How the Job ended; None while it goes on."""
    for condition in job.get("status", {}).get("conditions") or ():
        if condition.get("status") != "True":
            continue
        if condition.get("type") == "Complete":
            return Outcome(succeeded=True)
        if condition.get("type") == "Failed":
            return Outcome(
                succeeded=False,
                reason=str(condition.get("reason", "")),
                message=str(condition.get("message", "")),
            )
    return None


def _worker(pod: Object) -> Worker:
    metadata, status = pod["metadata"], pod.get("status", {})
    marks = {**(metadata.get("labels") or {}), **(metadata.get("annotations") or {})}
    state = _container_state(status)
    running, terminated = state.get("running"), state.get("terminated")
    failed = status.get("phase") == "Failed"
    message = str((terminated or {}).get("message") or "") if failed else ""
    return Worker(
        index=int(marks.get(INDEX, -1)),
        pod=str(metadata["name"]),
        created=str(metadata.get("creationTimestamp") or ""),
        phase=str(status.get("phase") or "Pending"),
        started=running is not None or terminated is not None,
        trouble=_trouble(status, state.get("waiting")),
        exit_code=None if terminated is None else int(terminated.get("exitCode", -1)),
        reason=str((terminated or {}).get("reason") or status.get("reason") or ""),
        last_lines=tuple(message.splitlines()[-_MESSAGE_LINES:]),
    )


def _container_state(status: Object) -> Object:
    for container in status.get("containerStatuses") or ():
        state: Object = container.get("state") or {}
        return state
    return {}


def _trouble(status: Object, waiting: Object | None) -> str:
    """The scheduler's reason, or the kubelet's; starting up is no trouble."""
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"{condition.get('reason', '')}: {condition.get('message', '')}"
    reason = str((waiting or {}).get("reason") or "")
    if reason in ("", "ContainerCreating", "PodInitializing"):
        return ""
    message = str((waiting or {}).get("message") or "")
    return f"{reason}: {message}" if message else reason
