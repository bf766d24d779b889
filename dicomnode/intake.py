"""Accepting received instances.

Owns the moment between a peer's C-STORE-RQ and our C-STORE-RSP: an instance is accepted
once its file and its job would survive a power cut, and not before. Talks to files and
index through ports; never decodes pixel data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from dicomnode.errors import StorageFull
from dicomnode.logs import get_logger
from dicomnode.metrics import Metrics
from dicomnode.ports import Acceptance, Clock, Files, Index, ReceivedInstance
from dicomnode.sr import DOCUMENT_CLASSES
from dicomnode.status import StorageStatus

log = get_logger(__name__)


class Intake:
    """Turns a received file into a stored instance with a job."""

    def __init__(
        self,
        *,
        files: Files,
        index: Index,
        clock: Clock,
        metrics: Metrics,
        idle_seconds: float,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self._files = files
        self._index = index
        self._clock = clock
        self._metrics = metrics
        self._idle = timedelta(seconds=idle_seconds)
        self._wake = wake

    def accept(self, received: ReceivedInstance) -> StorageStatus:
        """Keep the file, index it and queue its work; then say so.

        =================================  ======  ===================================
        What was received                  Status  What happens
        =================================  ======  ===================================
        a new instance                     0x0000  file, index row and job are durable
        an instance that is here already   0x0000  nothing; there is one job
        same UID, other content            0x0000  kept aside, logged, never overwrites
        anything, while the disk is full   0xA700  nothing is kept
        =================================  ======  ===================================

        The temporary file is gone afterwards, whatever the answer.
        """
        try:
            acceptance = self._keep(received)
        except StorageFull:
            self._count(received, "out_of_resources")
            log.error("store.full", sop_instance_uid=received.sop_instance_uid)
            return StorageStatus.OUT_OF_RESOURCES
        finally:
            self._files.discard(received.path)
        self._count(received, acceptance.value)
        if acceptance is Acceptance.CONFLICT:
            log.warning(
                "instance.conflict",
                sop_instance_uid=received.sop_instance_uid,
                calling_ae_title=received.calling_ae_title,
            )
        self._wake()
        return StorageStatus.SUCCESS

    def _keep(self, received: ReceivedInstance) -> Acceptance:
        """The file first, then the index: an instance that is here already has the same
        place, so keeping it again changes nothing, and no look-up is on the way of the
        others."""
        path = self._files.keep(received)
        if self._comes_back(received):
            received = replace(received, own_product=True)
        now = self._clock()
        acceptance = self._index.accept(
            received, path=path, now=now, report_due_at=now + self._idle
        )
        if acceptance is Acceptance.CONFLICT:
            self._index.record_conflict(received, path=self._files.set_aside(path))
        return acceptance

    def _comes_back(self, received: ReceivedInstance) -> bool:
        """A document of ours whose Manufacturer a PACS has rewritten: its UID tells."""
        return (
            not received.own_product
            and received.sop_class_uid in DOCUMENT_CLASSES
            and self._index.is_own_document(received.sop_instance_uid)
        )

    def _count(self, received: ReceivedInstance, outcome: str) -> None:
        self._metrics.instances_received.labels(received.peer_label, outcome).inc()
