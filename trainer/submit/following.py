"""From a created Job to its outcome: what is seen, what is told, when waiting makes no sense."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from trainer.errors import NothingToDo, UsageError
from trainer.submit import progress
from trainer.submit.api import Api
from trainer.submit.errors import CandidateRefused, ClusterError, Unreachable
from trainer.submit.pods import Object, selector
from trainer.submit.settings import ClusterSettings
from trainer.submit.watching import (
    SILENCE_SECONDS,
    Ended,
    Inbox,
    Line,
    LogFollower,
    Seen,
    Watcher,
)

Tell = Callable[[str, dict[str, Any]], None]

_LOG_END_SECONDS: Final = 10.0
_THREADS_END_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 5.0
"""How long nothing may be seen before the threads that look are looked after."""
_MARGIN_SECONDS: Final = 600.0
"""The cluster ends the Job at its deadline; who waits, waits a little longer."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to submit."""

    keep: bool = False
    """Leave the objects in the cluster, however it ends."""
    timeout_seconds: float | None = None
    """How long to wait for the Job; None waits for its deadline."""


class Following:
    """From the created Job to its outcome."""

    def __init__(
        self,
        api: Api,
        name: str,
        cluster: ClusterSettings,
        options: Options,
        tell: Tell,
    ) -> None:
        self._api, self._name, self._cluster, self._tell = api, name, cluster, tell
        seconds = options.timeout_seconds or cluster.deadline_seconds + _MARGIN_SECONDS
        now = time.monotonic()
        self._end, self._start_end, self._seconds = (
            now + seconds,
            now + cluster.start_seconds,
            seconds,
        )
        self._selector = ",".join(f"{key}={value}" for key, value in selector(name).items())
        self._inbox: Inbox = queue.SimpleQueue()
        self._stop = threading.Event()
        self._pods: dict[str, Object] = {}
        self._job: Object | None = None
        self._followers: dict[str, LogFollower] = {}
        self._started: set[int] = set()
        self._told: set[object] = set()
        self._counts: dict[str, int] = {}
        self._failed: dict[str, progress.Worker] = {}
        self._watchers: tuple[Watcher, ...] = ()

    def run(self) -> None:
        """Return when the Job succeeded.

        Raises `ClusterError`, `CandidateRefused` or `NothingToDo` otherwise.
        """
        api, name, pods = self._api, self._name, self._selector
        self._watchers = (
            Watcher(
                "job",
                lambda: api.list_jobs(name),
                lambda version: api.watch_jobs(name, version),
                self._inbox,
                self._stop,
            ),
            Watcher(
                "pods",
                lambda: api.list_pods(pods),
                lambda version: api.watch_pods(pods, version),
                self._inbox,
                self._stop,
            ),
        )
        try:
            for watcher in self._watchers:
                watcher.start()
            while (ended := self._outcome()) is None:
                self._wait()
            self._hear_out()
        finally:
            self._end_threads()
        facts = {"job": name, "result": "succeeded" if ended.succeeded else "failed"}
        error = None if ended.succeeded else self._failure(ended)
        if isinstance(error, CandidateRefused):
            # as `trainer retrain --json` says it: to Kubernetes the Job failed, to us it did not
            facts["outcome"] = "refused"
        self._tell("finished", facts)
        if error is not None:
            raise error

    def _end_threads(self) -> None:
        """Not left to the interpreter's end: a thread that wakes up there aborts the process."""
        self._stop.set()
        self._api.end_streams()
        end = time.monotonic() + _THREADS_END_SECONDS
        for thread in (*self._watchers, *self._followers.values()):
            if thread.is_alive():
                thread.join(max(0.0, end - time.monotonic()))

    def _outcome(self) -> progress.Outcome | None:
        return None if self._job is None else progress.outcome(self._job)

    def _wait(self) -> None:
        """Take in one observation; raises `ClusterError` when there is no sense in waiting."""
        now = time.monotonic()
        if now >= self._end:
            raise ClusterError(f"Job {self._name} has not ended within {self._seconds:.0f} s")
        all_started = len(self._started) >= self._cluster.workers
        if now >= self._start_end and not all_started:
            raise ClusterError(self._not_started())
        end = self._end if all_started else min(self._end, self._start_end)
        try:
            self._take(self._inbox.get(timeout=min(_LOOK_SECONDS, max(0.0, end - now))))
        except queue.Empty:
            dead = [watcher.name for watcher in self._watchers if not watcher.is_alive()]
            if dead:
                raise ClusterError(f"{dead[0]} ended by an error of its own, see above") from None

    def _take(self, item: Seen | Line | Ended) -> None:
        match item:
            case Seen(kind="job", objects=objects):
                if self._name not in objects and self._job is not None:
                    raise ClusterError(f"somebody removed Job {self._name} before it ended")
                self._job = objects.get(self._name, self._job)
            case Seen(objects=objects):
                self._pods = objects
                self._look()
            case Line(text=text):
                self._tell("log", {"line": text})
            case Ended(what=what, error=ClusterError() as error):
                if what not in self._followers:
                    raise error
                self._tell("log_lost", {"why": str(error)})

    def _look(self) -> None:
        """Tell what is new about the pods, and follow the chief."""
        found = progress.workers(self._pods.values())
        self._started.update(worker.index for worker in found if worker.started)
        counted = progress.counts(found)
        if counted != self._counts:
            self._counts = counted
            self._tell("pods", dict(counted))
        for worker in found:
            if worker.trouble and self._is_news(worker.pod, worker.trouble):
                self._tell("waiting", {"worker": worker.index, "why": worker.trouble})
            if worker.phase == "Failed" and worker.pod not in self._failed:
                self._failed[worker.pod] = worker
                self._tell(
                    "failed",
                    {
                        "worker": worker.index,
                        "exit_code": worker.exit_code,
                        "reason": worker.reason,
                        "last_lines": [] if worker.index == 0 else list(worker.last_lines),
                    },
                )
        chief = progress.chief(found)
        if chief is not None and chief.pod not in self._followers:
            self._follow(chief.pod)

    def _is_news(self, *fact: object) -> bool:
        known = fact in self._told
        self._told.add(fact)
        return not known

    def _follow(self, pod: str) -> None:
        def ended() -> bool:
            seen = self._pods.get(pod)
            return seen is None or progress.workers([seen])[0].ended

        def read(since: int | None) -> Any:
            return self._api.follow_log(pod, since_seconds=since, seconds=SILENCE_SECONDS)

        follower = LogFollower(pod, read, ended, self._inbox, self._stop)
        self._followers[pod] = follower
        follower.start()

    def _hear_out(self) -> None:
        """The pods' last states and the chief's last lines may come after the Job's end.

        They are waited for, but not for long: how the Job ended is known.
        """
        with contextlib.suppress(Unreachable):
            found = self._api.list_pods(self._selector).get("items", [])
            self._take(Seen("pods", {each["metadata"]["name"]: each for each in found}))
        end = time.monotonic() + _LOG_END_SECONDS
        while time.monotonic() < end:
            talking = any(follower.is_alive() for follower in self._followers.values())
            try:
                item = self._inbox.get(timeout=0.1 if talking else 0.0)
            except queue.Empty:
                if not talking:
                    return
            else:
                if isinstance(item, Line):
                    self._take(item)

    def _not_started(self) -> str:
        found = progress.workers(self._pods.values())
        missing = sorted(set(range(self._cluster.workers)) - self._started)
        why = "; ".join(dict.fromkeys(worker.trouble for worker in found if worker.trouble))
        return (
            f"worker {', '.join(map(str, missing))} of Job {self._name} has not started within "
            f"{self._cluster.start_seconds} s: {why or 'the cluster gives no reason'}; "
            "raise cluster.start_seconds if it only needs time"
        )

    def _failure(self, ended: progress.Outcome) -> Exception:
        failed = list(self._failed.values())
        reasons = progress.refusal(failed)
        if reasons:
            return CandidateRefused("; ".join(reasons))
        codes = {worker.exit_code for worker in failed}
        # the others were ended by the cluster, or lost their peer
        by_policy = ended.reason == "PodFailurePolicy" and UsageError.exit_code not in codes
        if by_policy and NothingToDo.exit_code in codes:
            return NothingToDo(f"Job {self._name} found nothing to do")
        said = f"{ended.reason} ({ended.message})" if ended.message else ended.reason
        said += "".join(dict.fromkeys(f"; {_ended(worker)}" for worker in failed))
        return ClusterError(f"Job {self._name} failed: {said}")


def _ended(worker: progress.Worker) -> str:
    code = "" if worker.exit_code is None else f" with exit code {worker.exit_code}"
    return f"worker {worker.index} ended{code} ({worker.reason or 'no reason given'})"
