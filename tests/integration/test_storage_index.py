"""The contract of `ports.Index`, on SQLite and PostgreSQL alike."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import func, select

from dicomnode.errors import LeaseLost, NotInStore
from dicomnode.findings import Evaluated, NotEvaluated, Outcome, Reason
from dicomnode.jobs import Job, JobKind, JobState
from dicomnode.ports import Acceptance, ReportPlan, WrittenDocumentFacts
from dicomnode.storage import Storage
from dicomnode.storage.schema import conflicts
from dicomnode.testing.stores import received_instance

NOW = datetime(2026, 3, 4, 5, 6, 7, 891011, tzinfo=UTC)
SECOND = timedelta(seconds=1)
STUDY = "1.2.3.100"
CAM = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)


def uid_maker() -> Any:
    numbers = itertools.count(1)
    return lambda: f"2.25.{next(numbers)}"


NEW_UID = uid_maker()


def accept(storage: Storage, *, due: datetime = NOW, now: datetime = NOW, **facts: Any) -> Any:
    received = received_instance(
        storage.files.incoming, received_at=facts.pop("received_at", now), **facts
    )
    path = storage.files.keep(received)
    found = storage.index.accept(received, path=path, now=now, report_due_at=due)
    if found is Acceptance.CONFLICT:
        storage.index.record_conflict(received, path=storage.files.set_aside(path))
    return found


def claim(storage: Storage, kind: JobKind, *, now: datetime = NOW, owner: str = "w") -> Job:
    (job,) = storage.queue.claim(kind, owner=owner, now=now, lease_seconds=60)
    return job


def evaluated(**changes: Any) -> Evaluated:
    facts: dict[str, Any] = {
        "model_name": "covid19",
        "model_version": 3,
        "backend": "127.0.0.1:8500",
        "probability": 0.8125,
        "threshold": 0.5,
        "present": True,
        "cam": CAM,
        "display_path": "display/1/2.png",
        "embedding": np.array([1, 2, 3], dtype=np.float32),
    }
    return Evaluated(**(facts | changes))


REFUSED = NotEvaluated(reason=Reason.VIEW, detail="found LATERAL, expected AP or PA")


def analyse(storage: Storage, outcome: Outcome = REFUSED, *, now: datetime = NOW) -> None:
    storage.index.record_outcome(claim(storage, JobKind.ANALYSE, now=now), outcome, now=now)


def plan(storage: Storage, *, now: datetime = NOW) -> tuple[Job, ReportPlan]:
    job = claim(storage, JobKind.REPORT, now=now)
    made = storage.index.plan_report(job, now=now, new_uid=NEW_UID)
    assert made is not None
    return job, made


def write(
    storage: Storage, job: Job, made: ReportPlan, *, now: datetime = NOW, to: tuple[str, ...] = ()
) -> None:
    facts = [
        WrittenDocumentFacts(
            plan=document, sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34", path=f"documents/{n}"
        )
        for n, document in enumerate(made.documents)
    ]
    storage.index.record_documents(job, made, facts, destinations=to, now=now)


def report(storage: Storage, *, now: datetime = NOW, to: tuple[str, ...] = ()) -> ReportPlan:
    job, made = plan(storage, now=now)
    write(storage, job, made, now=now, to=to)
    return made


def states(storage: Storage, kind: JobKind) -> list[JobState]:
    return [job.state for job in storage.queue.jobs() if job.kind is kind]


# ---------------------------------------------------------------- accept


def test_a_new_instance_is_indexed_with_one_analysis_and_one_report(storage: Storage) -> None:
    assert accept(storage, due=NOW + 5 * SECOND) is Acceptance.NEW
    held = storage.index.lookup("1.2.3.1")
    assert held is not None
    assert held == storage.index.instance(held.id)
    assert held.received_at == NOW
    jobs = storage.queue.jobs()
    assert {(job.kind, job.run_at) for job in jobs} == {
        (JobKind.ANALYSE, NOW),
        (JobKind.REPORT, NOW + 5 * SECOND),
    }
    assert {job.key for job in jobs} == {str(held.id), STUDY}


def test_a_duplicate_changes_nothing(storage: Storage) -> None:
    accept(storage)
    before = storage.queue.jobs()
    assert accept(storage, due=NOW + 60 * SECOND, now=NOW + SECOND) is Acceptance.DUPLICATE
    assert storage.queue.jobs() == before


@pytest.mark.parametrize("change", [{"content": b"other"}, {"study": "1.9"}, {"series": "1.9"}])
def test_another_content_under_a_known_uid_is_a_conflict_that_is_noted_once(
    storage: Storage, change: dict[str, Any]
) -> None:
    accept(storage)
    before = storage.index.lookup("1.2.3.1"), storage.queue.jobs()
    for _ in range(2):
        assert accept(storage, **change) is Acceptance.CONFLICT
    assert (storage.index.lookup("1.2.3.1"), storage.queue.jobs()) == before
    count = storage.database.read(
        lambda c: c.execute(select(func.count()).select_from(conflicts)).scalar()
    )
    assert count == 1
    assert storage.index.study("1.9") is None


def test_a_product_of_our_own_gets_no_jobs(storage: Storage) -> None:
    assert accept(storage, own_product=True) is Acceptance.NEW
    assert storage.queue.jobs() == []
    assert storage.index.outcomes(STUDY) == []


def test_hostile_text_in_a_header_can_be_indexed(storage: Storage) -> None:
    accept(storage, patient_id="A\0B\udc80" + "x" * 100, accession_number="\0")
    accept(storage, sop="1.2.3.2", content=b"2", patient_id="later", accession_number="ACC7")
    assert storage.index.label_keys(STUDY) == ("ACC7", "AB?" + "x" * 61)


def test_the_same_instance_from_many_threads_is_new_once(storage: Storage) -> None:
    found: Counter[Acceptance] = Counter()
    start = threading.Barrier(8)

    def send() -> None:
        received = received_instance(storage.files.incoming)
        start.wait(10)
        path = storage.files.keep(received)
        found[storage.index.accept(received, path=path, now=NOW, report_due_at=NOW)] += 1

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == {Acceptance.NEW: 1, Acceptance.DUPLICATE: 7}
    assert states(storage, JobKind.ANALYSE) == [JobState.QUEUED]


# ---------------------------------------------------------------- outcomes


@pytest.mark.parametrize(
    "outcome", [REFUSED, evaluated(), evaluated(cam=None, embedding=None, display_path=None)]
)
def test_an_outcome_comes_back_as_it_was(storage: Storage, outcome: Outcome) -> None:
    accept(storage)
    analyse(storage, outcome)
    ((_, found),) = storage.index.outcomes(STUDY)
    assert repr(found) == repr(outcome)
    if isinstance(found, Evaluated) and found.cam is not None:
        assert found.cam.dtype == np.float32
        np.testing.assert_array_equal(found.cam, CAM)
    assert states(storage, JobKind.ANALYSE) == [JobState.DONE]


def test_images_without_an_outcome_are_listed_too(storage: Storage) -> None:
    accept(storage)
    ((image, found),) = storage.index.outcomes(STUDY)
    assert (image.sop_instance_uid, found) == ("1.2.3.1", None)


def test_a_failed_analysis_leaves_a_refusal_so_that_the_study_is_reported(
    storage: Storage,
) -> None:
    accept(storage)
    job = claim(storage, JobKind.ANALYSE)
    refusal = NotEvaluated(reason=Reason.UNDECODABLE, detail="no decoder")
    storage.index.record_analysis_failure(
        job, refusal, error="no decoder", error_code="undecodable_image", now=NOW
    )
    assert states(storage, JobKind.ANALYSE) == [JobState.FAILED]
    assert report(storage).images[0][1] == refusal


def test_a_worker_that_lost_its_lease_records_nothing(storage: Storage) -> None:
    accept(storage)
    slow = claim(storage, JobKind.ANALYSE, owner="slow")
    later = NOW + 61 * SECOND
    quick = claim(storage, JobKind.ANALYSE, now=later, owner="quick")
    with pytest.raises(LeaseLost, match=f"job {slow.id} "):
        storage.index.record_outcome(slow, evaluated(), now=later)
    storage.index.record_analysis_failure(slow, REFUSED, error="x", error_code="x", now=later)
    assert storage.index.outcomes(STUDY)[0][1] is None
    storage.index.record_outcome(quick, REFUSED, now=later)
    assert storage.index.outcomes(STUDY)[0][1] == REFUSED


def test_one_owner_name_in_two_workers_is_still_two_leases(storage: Storage) -> None:
    accept(storage)
    slow = claim(storage, JobKind.ANALYSE)
    claim(storage, JobKind.ANALYSE, now=NOW + 61 * SECOND)
    with pytest.raises(LeaseLost):
        storage.index.record_outcome(slow, REFUSED, now=NOW + 61 * SECOND)


# ---------------------------------------------------------------- plans


def test_a_plan_fixes_uids_time_and_images(storage: Storage) -> None:
    accept(storage, sop="1.2.3.2", content=b"2")
    accept(storage, sop="1.2.3.1", content=b"1")
    analyse(storage, evaluated())
    analyse(storage, REFUSED)
    job, made = plan(storage)
    assert made.planned_at == NOW
    assert (made.revision, made.predecessor_sop_instance_uid) == (1, None)
    assert [image.sop_instance_uid for image, _ in made.images] == ["1.2.3.1", "1.2.3.2"]
    heatmap = made.heatmap
    assert heatmap is not None
    uids = {made.report.sop_instance_uid, heatmap.sop_instance_uid}
    assert len(uids | {made.report.series_instance_uid, heatmap.series_instance_uid}) == 4
    assert all(storage.index.is_own_document(uid) for uid in uids)
    assert not storage.index.is_own_document("1.2.3.1")
    assert storage.index.documents(STUDY) == []
    again = storage.index.plan_report(job, now=NOW + SECOND, new_uid=NEW_UID)
    assert repr(again) == repr(made)


def test_an_open_plan_survives_a_crash_unchanged_and_the_late_image_comes_next(
    storage: Storage,
) -> None:
    accept(storage)
    analyse(storage, evaluated())
    _, made = plan(storage)
    storage.queue.release_leases(now=NOW)
    accept(storage, sop="1.2.3.2", content=b"2")  # before the job runs again
    analyse(storage, REFUSED)
    job, again = plan(storage)
    assert repr(again) == repr(made)
    write(storage, job, again)
    assert states(storage, JobKind.REPORT) == [JobState.QUEUED]
    second = report(storage)
    assert len(second.images) == 2
    assert second.heatmap is None, "nothing new to show"
    assert second.predecessor_sop_instance_uid == made.report.sop_instance_uid
    assert second.predecessor_series_instance_uid == made.report.series_instance_uid
    assert states(storage, JobKind.REPORT) == [JobState.DONE]


def test_a_late_image_during_the_report_makes_another_one_later(storage: Storage) -> None:
    accept(storage)
    analyse(storage)
    job, made = plan(storage)
    accept(storage, sop="1.2.3.2", content=b"2", due=NOW + 9 * SECOND)
    assert states(storage, JobKind.REPORT) == [JobState.RUNNING]
    write(storage, job, made)
    (report_job,) = [job for job in storage.queue.jobs() if job.kind is JobKind.REPORT]
    assert (report_job.state, report_job.run_at) == (JobState.QUEUED, NOW + 9 * SECOND)
    analyse(storage, evaluated())
    assert storage.queue.claim(JobKind.REPORT, owner="w", now=NOW, lease_seconds=1) == []
    assert report(storage, now=NOW + 9 * SECOND).revision == 2


def test_a_late_image_after_the_report_makes_another_one(storage: Storage) -> None:
    accept(storage)
    analyse(storage)
    report(storage)
    later = NOW + timedelta(days=30)
    accept(storage, sop="1.2.3.2", content=b"2", now=later, due=later)
    analyse(storage, now=later)
    job, made = plan(storage, now=later)
    assert (made.revision, len(made.images)) == (2, 2)
    assert (job.created_at, job.attempts) == (later, 1)


def test_an_outcome_that_comes_after_the_report_makes_it_due_again(storage: Storage) -> None:
    """Two nodes can claim and accept at the same moment: the report must not be lost."""
    accept(storage)
    accept(storage, sop="1.2.3.2", content=b"2")
    first, second = storage.queue.claim(
        JobKind.ANALYSE, owner="w", now=NOW, lease_seconds=60, limit=2
    )
    storage.index.record_outcome(first, REFUSED, now=NOW)
    _force(storage, JobKind.REPORT, JobState.DONE)
    storage.index.record_outcome(second, REFUSED, now=NOW)
    assert len(report(storage).images) == 2


def test_nothing_new_to_say_settles_the_report(storage: Storage) -> None:
    accept(storage)
    analyse(storage)
    report(storage)
    _force(storage, JobKind.REPORT, JobState.QUEUED)
    job = claim(storage, JobKind.REPORT)
    assert storage.index.plan_report(job, now=NOW, new_uid=NEW_UID) is None
    assert states(storage, JobKind.REPORT) == [JobState.DONE]
    assert len(storage.index.documents(STUDY)) == 1


@pytest.mark.parametrize(
    ("second", "new_revision", "heatmap"),
    [
        (evaluated(), False, False),
        (evaluated(backend="other:1", probability=0.81250001), False, False),
        (evaluated(model_version=4), True, True),
        (evaluated(present=False, cam=None), True, False),
        (REFUSED, True, False),
    ],
)
def test_an_operators_retry_reports_again_only_what_changed(
    storage: Storage, second: Outcome, new_revision: bool, heatmap: bool
) -> None:
    accept(storage)
    analyse(storage, evaluated())
    report(storage)
    _force(storage, JobKind.ANALYSE, JobState.FAILED)
    (job,) = storage.queue.jobs(state=JobState.FAILED)
    assert storage.queue.requeue(job.id, now=NOW)
    assert storage.queue.claim(JobKind.REPORT, owner="w", now=NOW, lease_seconds=9) == []
    analyse(storage, second)
    job = claim(storage, JobKind.REPORT)
    made = storage.index.plan_report(job, now=NOW, new_uid=NEW_UID)
    assert (made is not None) is new_revision
    assert made is None or (made.heatmap is not None) is heatmap


def test_a_report_that_was_given_up_gives_its_plan_up(storage: Storage) -> None:
    accept(storage)
    analyse(storage)
    job, made = plan(storage)
    storage.queue.dead_letter(job, error="no header", error_code="report_unbuildable", now=NOW)
    assert not storage.index.is_own_document(made.report.sop_instance_uid)
    assert storage.queue.requeue(job.id, now=NOW)
    assert report(storage).report != made.report


def test_a_plan_is_closed_with_all_its_documents_or_not_at_all(storage: Storage) -> None:
    accept(storage)
    analyse(storage, evaluated())
    job, made = plan(storage)
    only = WrittenDocumentFacts(plan=made.report, sop_class_uid="1.2", path="documents/x")
    with pytest.raises(ValueError, match="1 are missing"):
        storage.index.record_documents(job, made, [only], destinations=["pacs"], now=NOW)
    assert storage.index.documents(STUDY) == []
    assert states(storage, JobKind.DELIVER) == []


def _force(storage: Storage, kind: JobKind, state: JobState) -> None:
    from sqlalchemy import update

    from dicomnode.storage.schema import jobs

    storage.database.write(
        lambda c: c.execute(update(jobs).where(jobs.c.kind == kind.value).values(state=state.value))
    )


# ---------------------------------------------------------------- deliveries and reading


def test_each_document_goes_to_each_destination(storage: Storage) -> None:
    accept(storage)
    analyse(storage, evaluated())
    made = report(storage, to=("pacs", "archive"))
    documents = storage.index.documents(STUDY)
    assert [document.kind for document in documents] == ["sr", "heatmap"]
    assert documents[0] == storage.index.document(documents[0].id)
    assert documents[0].created_at == made.planned_at
    assert len(storage.index.deliveries(STUDY)) == 4
    (job,) = storage.queue.claim(
        JobKind.DELIVER, owner="d", now=NOW, lease_seconds=9, destination="archive"
    )
    assert job.key == f"{documents[0].id}:archive"
    storage.index.record_delivery(job, status=0xB000, now=NOW + SECOND)
    done = [one for one in storage.index.deliveries(STUDY) if one.state is JobState.DONE]
    assert [(one.destination, one.status, one.settled_at) for one in done] == [
        ("archive", 0xB000, NOW + SECOND)
    ]
    with pytest.raises(LeaseLost):
        storage.index.record_delivery(job, status=0, now=NOW)


def test_turnaround_starts_with_the_last_image_of_the_revision(storage: Storage) -> None:
    accept(storage, received_at=NOW - 9 * SECOND)
    accept(storage, sop="1.2.3.2", content=b"2", received_at=NOW - 4 * SECOND)
    analyse(storage)
    analyse(storage)
    report(storage)
    assert storage.index.turnaround_start(STUDY, 1) == NOW - 4 * SECOND
    assert storage.index.turnaround_start(STUDY, 2) is None


def test_a_study_is_summarised_through_its_life(storage: Storage) -> None:
    seen = []

    def look() -> None:
        summary = storage.index.study(STUDY)
        assert summary is not None
        assert summary in storage.index.studies(state=summary.state)
        seen.append((summary.state, summary.evaluated, summary.not_evaluated, summary.revision))

    soon = datetime.now(UTC)
    accept(storage, now=soon, due=soon + timedelta(hours=1))
    look()
    accept(storage, sop="1.2.3.2", content=b"2")
    _move_report(storage)
    look()
    analyse(storage, evaluated(), now=soon)
    analyse(storage, now=soon)
    look()
    report(storage, now=soon, to=("pacs",))
    look()
    jobs = storage.queue.claim(JobKind.DELIVER, owner="d", now=soon, lease_seconds=9, limit=9)
    for job in jobs[1:]:
        storage.index.record_delivery(job, status=0, now=soon)
    storage.queue.dead_letter(jobs[0], error="refused", error_code="delivery_refused", now=soon)
    look()
    storage.queue.drop(jobs[0].id, now=soon)
    look()
    assert seen == [
        ("receiving", 0, 0, 0),
        ("analysing", 0, 0, 0),
        ("reporting", 1, 1, 0),
        ("delivering", 1, 1, 1),
        ("failed", 1, 1, 1),
        ("done", 1, 1, 1),
    ]


def _move_report(storage: Storage) -> None:
    from sqlalchemy import update

    from dicomnode.storage.schema import jobs

    storage.database.write(
        lambda c: c.execute(update(jobs).where(jobs.c.kind == "report").values(run_at=NOW))
    )


def test_studies_are_listed_newest_first_in_pages(storage: Storage) -> None:
    for n in range(3):
        accept(storage, sop=f"1.5.{n}", study=f"1.4.{n}", received_at=NOW + n * SECOND)
    assert [s.study_instance_uid for s in storage.index.studies(limit=2)] == ["1.4.2", "1.4.1"]
    assert [s.study_instance_uid for s in storage.index.studies(offset=2)] == ["1.4.0"]
    assert storage.index.studies(state="done") == []


def test_what_does_not_exist_is_named(storage: Storage) -> None:
    with pytest.raises(NotInStore, match="no instance with id 7"):
        storage.index.instance(7)
    with pytest.raises(NotInStore, match="no written document with id 8"):
        storage.index.document(8)
    assert storage.index.lookup("1.2") is None
    assert storage.index.study("1.2") is None
