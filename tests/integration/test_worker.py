"""Workers on the real queue: what becomes of a job that fails."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dicomnode.config import StorageSettings
from dicomnode.errors import BackendUnavailable, LeaseLost, UndecodableImage
from dicomnode.findings import NotEvaluated, Reason
from dicomnode.jobs import Job, JobKind, JobState
from dicomnode.retry import RetryPolicy
from dicomnode.storage import Storage, open_storage
from dicomnode.testing.stores import received_instance
from dicomnode.worker import Bell, Effort, FailureDesk, Worker

NOW = datetime(2026, 1, 2, tzinfo=UTC)
POLICY = RetryPolicy(maximum_attempts=2)


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    opened = open_storage(StorageSettings(root=tmp_path / "var", minimum_free_bytes=0))
    received = received_instance(opened.files.incoming)
    path = opened.files.keep(received)
    opened.index.accept(received, path=path, now=NOW, report_due_at=NOW)
    yield opened
    opened.close()


def worker(storage: Storage, handle) -> Worker:
    desk = FailureDesk(index=storage.index, queue=storage.queue, clock=lambda: NOW, policy=POLICY)
    return Worker(
        name="worker-1",
        kind=JobKind.ANALYSE,
        handle=handle,
        queue=storage.queue,
        desk=desk,
        clock=lambda: NOW,
        bell=Bell(),
        policy=POLICY,
        lease_seconds=60,
        owner="test",
    )


def analyse_job(storage: Storage) -> Job:
    (job,) = [job for job in storage.queue.jobs() if job.kind is JobKind.ANALYSE]
    return job


def raising(error: Exception):
    def handle(_: Job) -> str:
        raise error

    return handle


def test_an_undecodable_image_becomes_a_dead_letter_and_a_refusal_for_the_report(
    storage: Storage,
) -> None:
    error = UndecodableImage("cannot decode: JPEG 2000 ends early")
    assert worker(storage, raising(error)).work_once() is Effort.WORKED
    job = analyse_job(storage)
    assert (job.state, job.error_code) == (JobState.FAILED, "undecodable_image")
    ((_, outcome),) = storage.index.outcomes(job.study_instance_uid)
    assert isinstance(outcome, NotEvaluated)
    assert (outcome.reason, outcome.detail) == (Reason.UNDECODABLE, str(error))
    assert storage.queue.claim(JobKind.REPORT, owner="t", now=NOW, lease_seconds=9)


def test_an_outage_puts_the_job_back_and_pauses_the_worker(storage: Storage) -> None:
    error = BackendUnavailable("no model server")
    assert worker(storage, raising(error)).work_once() is Effort.OUTAGE
    job = analyse_job(storage)
    assert (job.state, job.error_code) == (JobState.QUEUED, "backend_unavailable")
    assert job.run_at > NOW


def test_the_text_of_a_foreign_error_is_not_kept(storage: Storage) -> None:
    """It may quote a header, and a header names a patient."""
    error = ValueError("Mustermann^Max is not a number")
    assert worker(storage, raising(error)).work_once() is Effort.WORKED
    job = analyse_job(storage)
    assert (job.last_error, job.error_code) == ("unforeseen ValueError", "unforeseen")


def test_a_job_that_somebody_else_holds_by_now_is_left_alone(storage: Storage) -> None:
    assert worker(storage, raising(LeaseLost("held by another"))).work_once() is Effort.WORKED
    assert analyse_job(storage).state is JobState.RUNNING


def test_nothing_to_do_is_idle(storage: Storage) -> None:
    seen: list[Job] = []

    def handle(job: Job) -> str:
        seen.append(job)
        storage.queue.settle(job, now=NOW)
        return "done"

    busy = worker(storage, handle)
    assert [busy.work_once(), busy.work_once()] == [Effort.WORKED, Effort.IDLE]
    assert len(seen) == 1
