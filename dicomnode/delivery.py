"""Delivering documents: one thread per destination, so that a hanging PACS delays only
its own deliveries.

A document is sent as it lies on disk, under the UID that was fixed before its first
send: sending it twice stores it once.
"""

from __future__ import annotations

import time
from collections import deque
from datetime import timedelta

from dicomnode import retry
from dicomnode.errors import DeliveryRefused, DestinationBusy, DicomnodeError, OutageError
from dicomnode.jobs import Job, JobKind
from dicomnode.metrics import Metrics
from dicomnode.ports import (
    Clock,
    Destination,
    DestinationSession,
    Files,
    Index,
    Outgoing,
    Queue,
    WrittenDocument,
)
from dicomnode.status import StatusCategory, categorise
from dicomnode.worker import Bell, Effort, FailureDesk, JobThread, job_context, log_settled

BATCH = 20
"""Documents sent over one association before the queue is asked again."""


class DeliveryWorker:
    """One thread that delivers to one destination."""

    def __init__(
        self,
        *,
        destination: Destination,
        files: Files,
        index: Index,
        queue: Queue,
        desk: FailureDesk,
        clock: Clock,
        bell: Bell,
        metrics: Metrics,
        policy: retry.RetryPolicy,
        lease_seconds: float,
        owner: str,
    ) -> None:
        self._destination = destination
        self._files = files
        self._index = index
        self._queue = queue
        self._desk = desk
        self._clock = clock
        self._bell = bell
        self._metrics = metrics
        self._lease = timedelta(seconds=lease_seconds)
        self._owner = owner
        self.thread = JobThread(
            name=f"delivery-{destination.name}",
            work=self.work_once,
            next_due=lambda: queue.next_due(JobKind.DELIVER, destination=destination.name),
            clock=clock,
            bell=bell,
            policy=policy,
        )

    def work_once(self) -> Effort:
        """Deliver up to `BATCH` documents over one association."""
        jobs = self._queue.claim(
            JobKind.DELIVER,
            owner=self._owner,
            now=self._clock(),
            lease_seconds=self._lease.total_seconds(),
            limit=BATCH,
            destination=self._destination.name,
        )
        if not jobs:
            return Effort.IDLE
        waiting = deque((job, self._index.document(int(job.key.partition(":")[0]))) for job in jobs)
        classes = sorted({document.sop_class_uid for _, document in waiting})
        try:
            with self._destination.connect(classes) as session:
                while waiting and not self.thread.stopping.is_set():
                    job, document = waiting[0]
                    if self._queue.renew(job, until=self._clock() + self._lease):
                        self._deliver(session, job, document)
                    waiting.popleft()
        except DicomnodeError as error:
            self._set_back(waiting, error)
            return Effort.OUTAGE if isinstance(error, OutageError) else Effort.WORKED
        for job, _ in waiting:
            self._queue.give_back(job, now=self._clock())
        return Effort.WORKED

    def _set_back(self, waiting: deque[tuple[Job, WrittenDocument]], error: DicomnodeError) -> None:
        """The first one met the error; the others were not tried and lose no attempt."""
        for position, (job, _) in enumerate(waiting):
            if position == 0:
                self._settle_failure(job, error, started=time.monotonic())
            else:
                self._queue.give_back(job, now=self._clock())

    def _deliver(self, session: DestinationSession, job: Job, document: WrittenDocument) -> None:
        """Send one document and settle its job. An outage is left to the caller."""
        started = time.monotonic()
        outgoing = Outgoing(
            path=self._files.absolute(document.path),
            sop_class_uid=document.sop_class_uid,
            sop_instance_uid=document.sop_instance_uid,
        )
        try:
            with self._metrics.stage_duration.labels("delivery").time():
                status = session.send(outgoing)
            self._judge_status(status, document)
        except OutageError:
            raise
        except Exception as error:  # noqa: BLE001 every error of a job is decided about
            self._settle_failure(job, error, started=started)
            return
        now = self._clock()
        self._index.record_delivery(job, status=status, now=now)
        self._metrics.deliveries.labels(self._destination.name, "stored").inc()
        if document.kind == "sr":
            self._observe_turnaround(document)
        with job_context(job):
            log_settled(job, "delivered", time.monotonic() - started)
        self._bell.ring()

    def _judge_status(self, status: int, document: WrittenDocument) -> None:
        category = categorise(status)
        message = (
            f"{self._destination.name} answered 0x{status:04X} for "
            f"{document.kind} {document.sop_instance_uid}"
        )
        if category is StatusCategory.TRY_AGAIN:
            raise DestinationBusy(message)
        if category is StatusCategory.REFUSED:
            raise DeliveryRefused(f"{message}; see the log of the destination")

    def _observe_turnaround(self, document: WrittenDocument) -> None:
        start = self._index.turnaround_start(document.study_instance_uid, document.revision)
        if start is not None:
            self._metrics.turnaround.observe((self._clock() - start).total_seconds())

    def _settle_failure(self, job: Job, error: Exception, *, started: float) -> None:
        outcome = self._desk.settle(job, error)
        self._metrics.deliveries.labels(self._destination.name, outcome).inc()
        with job_context(job):
            log_settled(job, outcome, time.monotonic() - started, error)
