"""Jobs: the durable promises of the node, and the arrows between their states."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime


class JobKind(enum.Enum):
    """What a job does. One row in the queue per instance, study or delivery."""

    ANALYSE = "analyse"
    """One instance: gate, decode, infer. Key: the instance's row id."""
    REPORT = "report"
    """One study that has settled: build and write its documents. Key: Study Instance UID."""
    DELIVER = "deliver"
    """One document to one destination. Key: `document_id:destination`."""


class JobState(enum.Enum):
    """Where a job stands. The arrows are the only transitions that the queue makes."""

    QUEUED = "queued"
    """waiting for its `run_at` -> RUNNING, DROPPED"""
    RUNNING = "running"
    """leased to a worker -> DONE, QUEUED (retry, or its lease expired), FAILED"""
    DONE = "done"
    """settled; a report job goes back to QUEUED when the study gets another image"""
    FAILED = "failed"
    """dead letter: given up; `dicomnode queue retry` -> QUEUED, `queue drop` -> DROPPED"""
    DROPPED = "dropped"
    """an operator decided that it need not be done; `queue retry` -> QUEUED"""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One row of the queue, as claimed by a worker. Times are aware and in UTC."""

    id: int
    kind: JobKind
    key: str
    study_instance_uid: str
    destination: str | None
    state: JobState
    attempts: int
    """How often it was claimed, this time included."""
    generation: int
    """Grows when the work changes while a worker holds the job (a late image)."""
    created_at: datetime
    run_at: datetime
    lease_owner: str | None
    lease_until: datetime | None
    last_error: str | None
    error_code: str | None
