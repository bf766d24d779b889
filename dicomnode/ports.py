"""What the node needs from the world, as Protocols.

The adapters (`dimse`, `storage`, `serving`, `sandbox`, `dicomweb`) fulfil them; intake,
pipeline, worker and delivery know nothing else. Times are aware datetimes in UTC.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicomnode.findings import NotEvaluated, Outcome, Prediction, PreparedImage
from dicomnode.jobs import Job, JobKind, JobState
from dicomnode.modelcard import ModelCard

Clock = Callable[[], datetime]
"""Now, aware, in UTC."""

NewUid = Callable[[], str]
"""A fresh DICOM UID (UUID-derived, PS3.5 B.2)."""


# ---------------------------------------------------------------- instances and documents


@dataclass(frozen=True, kw_only=True)
class ReceivedInstance:
    """What a C-STORE brought: a complete Part 10 file in the incoming folder.

    Every UID here was parsed (PS3.5 9.1) before it got into this record.
    """

    path: Path
    """Temporary file inside `Files.incoming`; complete, closed, perhaps not yet fsynced."""
    size: int
    digest: str
    """SHA-256 (hex) of the data set's bytes as received, file meta information excluded."""
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    calling_ae_title: str
    received_at: datetime
    peer_label: str = "unknown"
    """The AE title when it is a configured one; any other would be an unbounded label."""
    accession_number: str = ""
    patient_id: str = ""
    """For the index only: it never reaches a log line, a metric or an exception."""
    modality: str = ""
    own_product: bool = False
    """Made by a dicomnode (heatmap or report): kept, never analysed, so no loop arises."""


@dataclass(frozen=True, kw_only=True)
class StoredInstance:
    """An instance in the store."""

    id: int
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    calling_ae_title: str
    received_at: datetime
    digest: str
    size: int
    path: str
    """Relative to the store's root."""


class Acceptance(enum.Enum):
    """What became of a received instance. The value is the label `outcome` of
    `dicomnode_instances_received_total`."""

    NEW = "stored"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


@dataclass(frozen=True, kw_only=True)
class DocumentPlan:
    """A document whose UIDs and time were fixed before it was built."""

    kind: str
    """"sr" or "heatmap"."""
    sop_instance_uid: str
    series_instance_uid: str


@dataclass(frozen=True, kw_only=True)
class ReportPlan:
    """What the next report of a study will say and be called, fixed in the database
    before anything is built, so that a crash leads to the same bytes again."""

    study_instance_uid: str
    revision: int
    planned_at: datetime
    report: DocumentPlan
    heatmap: DocumentPlan | None
    """None when no image has anything to show, or nothing new since the last one."""
    images: tuple[tuple[StoredInstance, Outcome], ...]
    """Every image of the study with what was found, ordered by series and instance UID."""
    predecessor_sop_instance_uid: str | None
    predecessor_series_instance_uid: str | None

    @property
    def documents(self) -> tuple[DocumentPlan, ...]:
        return (self.report,) if self.heatmap is None else (self.report, self.heatmap)


@dataclass(frozen=True, kw_only=True)
class WrittenDocumentFacts:
    """What `Index.record_documents` needs of each document that is on disk now."""

    plan: DocumentPlan
    sop_class_uid: str
    path: str


@dataclass(frozen=True, kw_only=True)
class WrittenDocument:
    """A document on disk, ready to be sent as it is."""

    id: int
    kind: str
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    revision: int
    path: str
    """Relative to the store's root."""
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """What became of one document at one destination."""

    document_id: int
    destination: str
    state: JobState
    status: int | None
    attempts: int
    error: str | None
    settled_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class StudySummary:
    """One line of `studies list`. No patient data."""

    study_instance_uid: str
    state: str
    """receiving, analysing, reporting, delivering, done, failed."""
    instances: int
    evaluated: int
    not_evaluated: int
    failed_jobs: int
    first_received_at: datetime
    last_received_at: datetime
    revision: int
    """Of the newest report; 0 when there is none yet."""


class Files(Protocol):
    """Part 10 files and documents under one root, durable before a method returns."""

    root: Path
    incoming: Path

    def keep(self, received: ReceivedInstance) -> str:
        """Fsync the temporary file, rename it to its place, fsync the folders.

        Returns the path relative to `root`. The name holds the digest, so nothing is
        ever overwritten by other content. Raises `StorageFull`.
        """

    def set_aside(self, path: str) -> str:
        """Move what `keep` kept to `conflicts/`, durably; returns the new path."""

    def discard(self, path: Path) -> None:
        """Remove a temporary file; no error when it is gone."""

    def write_document(self, relative: str, data: bytes) -> None:
        """Write atomically and durably under `root`. Raises `StorageFull`."""

    def absolute(self, relative: str) -> Path:
        """The path of a stored thing; refuses to leave `root`."""

    def read_header(self, relative: str) -> Dataset:
        """The data set without its pixel data. Raises `NotAnInstance`."""

    def free_bytes(self) -> int:
        """Bytes free for this process on the file system of `root`."""


class Index(Protocol):
    """Instances, outcomes, documents and the queue, in one database.

    Every method is one transaction, durable when it returns.
    """

    def accept(
        self, received: ReceivedInstance, *, path: str, now: datetime, report_due_at: datetime
    ) -> Acceptance:
        """Index an instance whose file is in place, and queue its work.

        `NEW`: instance row, ANALYSE job, and the study's REPORT job (made, or moved to
        `report_due_at` with its generation raised). `DUPLICATE`: same UID and digest,
        nothing changes. `CONFLICT`: same SOP Instance UID with another digest (or in
        another study or series); nothing changes, the caller sets the file aside.
        An `own_product` is indexed without jobs.
        """

    def record_conflict(self, received: ReceivedInstance, *, path: str) -> None:
        """Note an instance that was set aside at `path`; noting it again is no error."""

    def lookup(self, sop_instance_uid: str) -> StoredInstance | None: ...

    def instance(self, instance_id: int) -> StoredInstance: ...

    def is_own_document(self, sop_instance_uid: str) -> bool: ...

    def record_outcome(self, job: Job, outcome: Outcome, *, now: datetime) -> None:
        """Store what was found on the ANALYSE job's instance and settle the job as DONE."""

    def record_analysis_failure(
        self, job: Job, outcome: NotEvaluated, *, error: str, error_code: str, now: datetime
    ) -> None:
        """Store the refusal and dead-letter the ANALYSE job, in one transaction."""

    def plan_report(self, job: Job, *, now: datetime, new_uid: NewUid) -> ReportPlan | None:
        """The open plan of the study, or a new one; None when the newest written report
        already says exactly this. A plan, once made, keeps its images, UIDs and time."""

    def record_documents(
        self,
        job: Job,
        plan: ReportPlan,
        documents: Sequence[WrittenDocumentFacts],
        *,
        destinations: Sequence[str],
        now: datetime,
    ) -> None:
        """Close the plan, insert its documents and one DELIVER job per document and
        destination, and settle the REPORT job (back to QUEUED when its generation grew)."""

    def document(self, document_id: int) -> WrittenDocument: ...

    def documents(self, study_instance_uid: str) -> list[WrittenDocument]: ...

    def deliveries(self, study_instance_uid: str) -> list[Delivery]: ...

    def record_delivery(self, job: Job, *, status: int, now: datetime) -> None: ...

    def turnaround_start(self, study_instance_uid: str, revision: int) -> datetime | None:
        """When the last image of that revision was received."""

    def studies(
        self, *, limit: int = 50, offset: int = 0, state: str | None = None
    ) -> list[StudySummary]: ...

    def study(self, study_instance_uid: str) -> StudySummary | None: ...

    def outcomes(self, study_instance_uid: str) -> list[tuple[StoredInstance, Outcome | None]]: ...


class Queue(Protocol):
    """The job side of the same database."""

    def claim(
        self,
        kind: JobKind,
        *,
        owner: str,
        now: datetime,
        lease_seconds: float,
        limit: int = 1,
        destination: str | None = None,
    ) -> list[Job]:
        """Lease up to `limit` due jobs, oldest `run_at` first, expired leases included.

        A REPORT job is not due while an ANALYSE job of its study is QUEUED or RUNNING.
        """

    def renew(self, job: Job, *, until: datetime) -> bool:
        """Prolong a lease; False when it was lost."""

    def settle(self, job: Job, *, now: datetime) -> None:
        """RUNNING -> DONE, or -> QUEUED when the generation grew meanwhile."""

    def retry_at(self, job: Job, *, when: datetime, error: str, error_code: str) -> None: ...

    def give_back(self, job: Job, *, now: datetime) -> None:
        """RUNNING -> QUEUED at once, the attempt not counted (orderly shutdown)."""

    def dead_letter(self, job: Job, *, error: str, error_code: str, now: datetime) -> None: ...

    def release_leases(self, *, now: datetime) -> int:
        """RUNNING -> QUEUED for all: only for the single owner of the database at start."""

    def jobs(self, *, state: JobState | None = None, limit: int = 100) -> list[Job]: ...

    def requeue(self, job_id: int, *, now: datetime) -> bool:
        """An operator's retry: FAILED or DROPPED -> QUEUED with attempts 0."""

    def drop(self, job_id: int, *, now: datetime) -> bool:
        """An operator's drop: QUEUED or FAILED -> DROPPED."""

    def counts(self) -> dict[JobState, int]: ...

    def next_due(self, kind: JobKind, *, destination: str | None = None) -> datetime | None: ...


# ---------------------------------------------------------------- images and models


class Preparer(Protocol):
    """Turns a stored file into the model's input, away from this process's memory."""

    def prepare(self, path: Path, *, profile: str) -> PreparedImage | NotEvaluated:
        """Gate, decode, preprocess. Raises `UndecodableImage`, `SandboxUnavailable`."""

    def close(self) -> None: ...


class Predictor(Protocol):
    """The replicas that serve the model."""

    def predict(self, image: NDArray[np.uint8], *, version: int | None = None) -> Prediction:
        """Ask for uint8 [height, width, 3]; `version` None means the newest that is served.

        Raises `BackendUnavailable` (retry later) or `ModelRefused` (never); its
        `OtherSizeWanted` names the version that takes another size.
        """

    def ready(self) -> bool:
        """Whether at least one replica says that the model is AVAILABLE."""

    def close(self) -> None: ...


class ModelCards(Protocol):
    """Cards by version."""

    def get(self, version: int) -> ModelCard:
        """Raises `ModelCardMissing`."""

    def newest(self) -> ModelCard:
        """The card of the highest version on disk. Raises `ModelCardMissing`."""


# ---------------------------------------------------------------- destinations


@dataclass(frozen=True, kw_only=True)
class Outgoing:
    """One document to send as it is on disk."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str


class DestinationSession(Protocol):
    """An open way to one destination."""

    def send(self, document: Outgoing) -> int:
        """The status that the destination gave (a DIMSE status; STOW-RS is mapped to one).

        Raises `DestinationUnavailable` when the way broke, `DeliveryRefused` when this
        document cannot even be offered (no presentation context).
        """


class Destination(Protocol):
    """A PACS."""

    name: str

    def connect(self, sop_class_uids: Sequence[str]) -> AbstractContextManager[DestinationSession]:
        """Open an association (or an HTTP session) able to carry these SOP classes.

        Raises `DestinationUnavailable`.
        """
