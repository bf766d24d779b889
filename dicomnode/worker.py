"""When jobs happen: claim, carry out, settle or decide about the error.

A worker is one thread for one kind of job. It claims with a lease, so a crash returns
the job; it decides about errors with `retry.decide`, so nothing is retried for ever.
"""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

import structlog

from dicomnode import retry
from dicomnode.errors import DicomnodeError, LeaseLost, NotAnInstance, OutageError, UndecodableImage
from dicomnode.findings import NotEvaluated, Reason
from dicomnode.jobs import Job, JobKind
from dicomnode.logs import get_logger
from dicomnode.ports import Clock, Index, Queue

log = get_logger(__name__)

POLL_SECONDS = 1.0
"""How long a worker may miss work that another process put into the shared queue."""


class Bell:
    """Wakes the workers of this process when there may be something to do."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._rings = 0

    def ring(self) -> None:
        with self._condition:
            self._rings += 1
            self._condition.notify_all()

    def heard(self) -> int:
        """How often it rang; pass it to `wait` so that no ring in between is missed."""
        with self._condition:
            return self._rings

    def wait(self, heard: int, timeout: float) -> None:
        """Wait for a ring after the first `heard` ones, or for `timeout` seconds."""
        with self._condition:
            self._condition.wait_for(lambda: self._rings != heard, timeout)


class Siesta:
    """Calls `rest` once whenever the bell has been silent for a while."""

    def __init__(self, *, bell: Bell, rest: Callable[[], None], silence_seconds: float) -> None:
        self._bell = bell
        self._rest = rest
        self._silence_seconds = silence_seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="siesta", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._bell.ring()
        self._thread.join(1.0)

    def _run(self) -> None:
        rested_at = -1
        while not self._stopping.is_set():
            heard = self._bell.heard()
            self._bell.wait(heard, self._silence_seconds)
            if self._bell.heard() == heard != rested_at:
                self._rest()
                rested_at = heard


class FailureDesk:
    """Decides what becomes of a job that ended in an error, and carries it out."""

    def __init__(
        self, *, index: Index, queue: Queue, clock: Clock, policy: retry.RetryPolicy
    ) -> None:
        self._index = index
        self._queue = queue
        self._clock = clock
        self._policy = policy

    def settle(self, job: Job, error: Exception) -> str:
        """Retry later or dead-letter; returns the outcome for the job's event.

        A job whose lease was lost is somebody else's by now: nothing is recorded.
        """
        if isinstance(error, LeaseLost):
            return "lease_lost"
        try:
            return self._decided(job, error)
        except LeaseLost:
            return "lease_lost"

    def _decided(self, job: Job, error: Exception) -> str:
        now = self._clock()
        decision = retry.decide(
            error,
            attempts=job.attempts,
            created_at=job.created_at,
            now=now,
            policy=self._policy,
        )
        message, code = describe(error)
        if isinstance(decision, retry.RetryAt):
            self._queue.retry_at(job, when=decision.when, error=message, error_code=code)
            return "retry"
        message = f"{message} ({decision.why})"
        if job.kind is JobKind.ANALYSE:
            self._index.record_analysis_failure(
                job, _refusal(error), error=message, error_code=code, now=now
            )
        else:
            self._queue.dead_letter(job, error=message, error_code=code, now=now)
        return "dead_letter"


def describe(error: Exception) -> tuple[str, str]:
    """The message and code of an error for the queue.

    Only our own errors are known to be free of patient data; of any other, the type
    alone is kept.
    """
    if isinstance(error, DicomnodeError):
        return str(error), error.code
    return f"unforeseen {type(error).__name__}", "unforeseen"


def _refusal(error: Exception) -> NotEvaluated:
    message, _ = describe(error)
    if isinstance(error, UndecodableImage | NotAnInstance):
        return NotEvaluated(reason=Reason.UNDECODABLE, detail=message)
    return NotEvaluated(reason=Reason.INFERENCE_FAILED, detail=message)


class Effort(enum.Enum):
    """What one round of a worker came to."""

    IDLE = "nothing to do"
    WORKED = "a job was carried out"
    OUTAGE = "what every job needs is away"


class JobThread:
    """A thread that works round after round, waits when idle and pauses in an outage."""

    def __init__(
        self,
        *,
        name: str,
        work: Callable[[], Effort],
        next_due: Callable[[], datetime | None],
        clock: Clock,
        bell: Bell,
        policy: retry.RetryPolicy,
    ) -> None:
        self.name = name
        self.stopping = threading.Event()
        self._work = work
        self._next_due = next_due
        self._clock = clock
        self._bell = bell
        self._policy = policy
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Finish what is in hand, waiting at most `timeout` seconds."""
        self.stopping.set()
        self._bell.ring()
        self._thread.join(timeout)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        outages = 0
        while not self.stopping.is_set():
            heard = self._bell.heard()
            effort = self._round()
            outages = outages + 1 if effort is Effort.OUTAGE else 0
            if effort is Effort.OUTAGE:
                self.stopping.wait(retry.backoff_seconds(outages, self._policy))
            elif effort is Effort.IDLE:
                self._bell.wait(heard, self._seconds_until_due())

    def _round(self) -> Effort:
        try:
            return self._work()
        except Exception as error:  # the queue itself failed: say so, pause, go on
            log.error("worker.failed", worker=self.name, error=describe(error)[0])
            log.debug("worker.failed", worker=self.name, exc_info=error)
            return Effort.OUTAGE

    def _seconds_until_due(self) -> float:
        try:
            due = self._next_due()
        except Exception as error:  # noqa: BLE001 as above; the next round reports it again
            log.error("worker.failed", worker=self.name, error=describe(error)[0])
            return POLL_SECONDS
        if due is None:
            return POLL_SECONDS
        return min(max((due - self._clock()).total_seconds(), 0.01), POLL_SECONDS)


class Worker:
    """Carries out jobs of one kind, one at a time."""

    def __init__(
        self,
        *,
        name: str,
        kind: JobKind,
        handle: Callable[[Job], str],
        queue: Queue,
        desk: FailureDesk,
        clock: Clock,
        bell: Bell,
        policy: retry.RetryPolicy,
        lease_seconds: float,
        owner: str,
    ) -> None:
        self._kind = kind
        self._handle = handle
        self._queue = queue
        self._desk = desk
        self._clock = clock
        self._bell = bell
        self._lease_seconds = lease_seconds
        self._owner = owner
        self.thread = JobThread(
            name=name,
            work=self.work_once,
            next_due=lambda: queue.next_due(kind),
            clock=clock,
            bell=bell,
            policy=policy,
        )

    def work_once(self) -> Effort:
        """Claim one job and carry it out."""
        claimed = self._queue.claim(
            self._kind,
            owner=self._owner,
            now=self._clock(),
            lease_seconds=self._lease_seconds,
        )
        if not claimed:
            return Effort.IDLE
        error = self._carry_out(claimed[0])
        self._bell.ring()
        return Effort.OUTAGE if isinstance(error, OutageError) else Effort.WORKED

    def _carry_out(self, job: Job) -> Exception | None:
        started = time.monotonic()
        error: Exception | None = None
        with job_context(job):
            try:
                outcome = self._handle(job)
            except Exception as raised:  # noqa: BLE001 every error of a job is decided about
                error = raised
                outcome = self._desk.settle(job, raised)
            log_settled(job, outcome, time.monotonic() - started, error)
        return error


def job_context(job: Job) -> AbstractContextManager[None]:
    """What every event about a job carries."""
    facts: dict[str, Any] = {
        "job_id": job.id,
        "kind": job.kind.value,
        "study_instance_uid": job.study_instance_uid,
    }
    if job.destination is not None:
        facts["destination"] = job.destination
    return structlog.contextvars.bound_contextvars(**facts)


def log_settled(job: Job, outcome: str, seconds: float, error: Exception | None = None) -> None:
    """The one canonical event of a job."""
    facts = {"outcome": outcome, "attempts": job.attempts, "duration_seconds": round(seconds, 4)}
    if error is None:
        log.info("job.settled", **facts)
        return
    message, code = describe(error)
    log.warning("job.settled", **facts, error=message, error_code=code)
    if not isinstance(error, DicomnodeError):
        log.debug("job.unforeseen", exc_info=error)
