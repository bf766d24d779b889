"""The contract of `ports.Queue`, on SQLite and PostgreSQL alike."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicomnode.findings import NotEvaluated, Reason
from dicomnode.jobs import Job, JobKind, JobState
from dicomnode.ports import WrittenDocumentFacts
from dicomnode.storage import Storage, open_storage
from dicomnode.testing.stores import opened_store, received_instance, store_settings

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
SECOND = timedelta(seconds=1)
REFUSED = NotEvaluated(reason=Reason.VIEW, detail="found LATERAL")
UIDS = (f"2.25.{n}" for n in itertools.count(1))


def add(storage: Storage, number: int = 1, *, study: str = "1.4.1", at: datetime = NOW) -> None:
    received = received_instance(
        storage.files.incoming, sop=f"1.5.{number}", study=study, content=str(number).encode()
    )
    path = storage.files.keep(received)
    storage.index.accept(received, path=path, now=at, report_due_at=at)


def claim(
    storage: Storage, kind: JobKind = JobKind.ANALYSE, *, now: datetime = NOW, limit: int = 1
) -> list[Job]:
    return storage.queue.claim(kind, owner="w", now=now, lease_seconds=60, limit=limit)


def only(storage: Storage, kind: JobKind) -> Job:
    (job,) = [job for job in storage.queue.jobs() if job.kind is kind]
    return job


def test_a_claim_leases_the_oldest_due_jobs_first(storage: Storage) -> None:
    for number, seconds in ((1, 3), (2, 1), (3, 2), (4, 9)):
        add(storage, number, study=f"1.4.{number}", at=NOW + seconds * SECOND)
    assert claim(storage) == []
    jobs = claim(storage, now=NOW + 5 * SECOND, limit=2)
    assert [job.study_instance_uid for job in jobs] == ["1.4.2", "1.4.3"]
    assert {job.state for job in jobs} == {JobState.RUNNING}
    assert {job.attempts for job in jobs} == {1}
    assert {job.lease_until for job in jobs} == {NOW + 65 * SECOND}
    (rest,) = claim(storage, now=NOW + 5 * SECOND, limit=9)
    assert rest.study_instance_uid == "1.4.1"


def test_an_expired_lease_is_claimed_again_in_its_place(storage: Storage) -> None:
    add(storage, 1)
    claim(storage)
    add(storage, 2, study="1.4.2", at=NOW + 10 * SECOND)
    assert storage.queue.next_due(JobKind.ANALYSE) == NOW + 10 * SECOND
    jobs = claim(storage, now=NOW + 60 * SECOND, limit=9)
    assert [(job.key, job.attempts) for job in jobs] == [("1", 2), ("2", 1)]


def test_a_renewed_lease_lasts_and_a_lost_one_cannot_be_renewed(storage: Storage) -> None:
    add(storage)
    (job,) = claim(storage)
    assert storage.queue.renew(job, until=NOW + 120 * SECOND)
    assert claim(storage, now=NOW + 61 * SECOND) == []
    assert len(claim(storage, now=NOW + 120 * SECOND)) == 1
    assert not storage.queue.renew(job, until=NOW + 999 * SECOND)


def test_a_report_waits_for_every_image_of_its_study(storage: Storage) -> None:
    add(storage, 1)
    add(storage, 2)
    add(storage, 3, study="1.4.2")
    assert claim(storage, JobKind.REPORT) == []
    assert storage.queue.next_due(JobKind.REPORT) is None
    first, second, _ = claim(storage, limit=3)
    storage.index.record_outcome(first, REFUSED, now=NOW)
    storage.queue.retry_at(second, when=NOW + SECOND, error="busy", error_code="x")
    assert claim(storage, JobKind.REPORT) == []
    (second,) = claim(storage, now=NOW + SECOND)
    storage.index.record_outcome(second, REFUSED, now=NOW)
    assert storage.queue.next_due(JobKind.REPORT) == NOW
    assert [job.key for job in claim(storage, JobKind.REPORT, limit=9)] == ["1.4.1"]


def test_a_dropped_image_is_not_waited_for(storage: Storage) -> None:
    add(storage)
    assert storage.queue.drop(only(storage, JobKind.ANALYSE).id, now=NOW)
    assert len(claim(storage, JobKind.REPORT)) == 1


def test_a_retry_keeps_count_and_reason(storage: Storage) -> None:
    add(storage)
    (job,) = claim(storage)
    storage.queue.retry_at(
        job, when=NOW + 4 * SECOND, error="no backend\0", error_code="backend_unavailable"
    )
    waiting = only(storage, JobKind.ANALYSE)
    assert (waiting.state, waiting.attempts) == (JobState.QUEUED, 1)
    assert (waiting.last_error, waiting.error_code) == ("no backend", "backend_unavailable")
    assert (waiting.lease_owner, waiting.lease_until) == (None, None)
    assert claim(storage) == []
    assert claim(storage, now=NOW + 4 * SECOND)[0].attempts == 2


def test_what_is_given_back_loses_no_attempt(storage: Storage) -> None:
    add(storage)
    (job,) = claim(storage)
    storage.queue.give_back(job, now=NOW)
    assert claim(storage)[0].attempts == 1


def test_settled_is_done(storage: Storage) -> None:
    add(storage)
    (job,) = claim(storage)
    storage.queue.settle(job, now=NOW)
    assert only(storage, JobKind.ANALYSE).state is JobState.DONE


def test_a_report_goes_back_when_an_image_came_meanwhile(storage: Storage) -> None:
    """Whatever the worker does with it in the end."""
    endings: list[Callable[[Job], None]] = [
        lambda job: storage.queue.settle(job, now=NOW),
        lambda job: storage.queue.dead_letter(job, error="e", error_code="x", now=NOW),
        lambda job: storage.queue.give_back(job, now=NOW),
        lambda job: storage.queue.retry_at(job, when=NOW, error="e", error_code="x"),
    ]
    for number, end in enumerate(endings, start=1):
        study = f"1.4.{number}"
        add(storage, 2 * number, study=study)
        storage.index.record_outcome(claim(storage)[0], REFUSED, now=NOW)
        (job,) = claim(storage, JobKind.REPORT)
        later = NOW + timedelta(hours=number)
        add(storage, 2 * number + 1, study=study, at=later)
        storage.index.record_outcome(claim(storage, now=later)[0], REFUSED, now=NOW)
        end(job)
        (again,) = [job for job in storage.queue.jobs() if job.key == study]
        assert (again.state, again.run_at) == (JobState.QUEUED, later), number


def test_a_worker_that_lost_its_lease_changes_nothing(storage: Storage) -> None:
    add(storage)
    (slow,) = claim(storage)
    (quick,) = claim(storage, now=NOW + 60 * SECOND)
    storage.queue.settle(slow, now=NOW)
    storage.queue.retry_at(slow, when=NOW, error="e", error_code="x")
    storage.queue.give_back(slow, now=NOW)
    storage.queue.dead_letter(slow, error="e", error_code="x", now=NOW)
    assert only(storage, JobKind.ANALYSE) == quick


def test_a_dead_letter_of_an_image_leaves_a_refusal(storage: Storage) -> None:
    add(storage)
    (job,) = claim(storage)
    storage.queue.dead_letter(job, error="no luck", error_code="unforeseen", now=NOW)
    assert storage.queue.jobs(state=JobState.FAILED)[0].last_error == "no luck"
    ((_, outcome),) = storage.index.outcomes("1.4.1")
    assert outcome == NotEvaluated(
        reason=Reason.INFERENCE_FAILED, detail="The analysis was given up (unforeseen)."
    )
    assert len(claim(storage, JobKind.REPORT)) == 1


def test_an_operators_retry_starts_anew(storage: Storage) -> None:
    """Its age as well: an outage is retried by age."""
    add(storage)
    (job,) = claim(storage)
    assert not storage.queue.requeue(job.id, now=NOW)
    assert not storage.queue.drop(job.id, now=NOW)
    storage.queue.dead_letter(job, error="e", error_code="x", now=NOW)
    later = NOW + timedelta(days=9)
    assert storage.queue.requeue(job.id, now=later)
    again = only(storage, JobKind.ANALYSE)
    assert (again.state, again.attempts, again.created_at) == (JobState.QUEUED, 0, later)
    assert (again.last_error, again.error_code) == (None, None)
    assert storage.queue.drop(job.id, now=NOW)
    assert not storage.queue.drop(job.id, now=NOW)
    assert storage.queue.requeue(job.id, now=NOW)
    assert not storage.queue.requeue(999, now=NOW)


def test_jobs_are_counted_by_state(storage: Storage) -> None:
    assert storage.queue.counts() == {}
    add(storage, 1)
    add(storage, 2)
    claim(storage)
    assert storage.queue.counts() == {JobState.QUEUED: 2, JobState.RUNNING: 1}
    assert len(storage.queue.jobs(limit=2)) == 2


def test_deliveries_are_claimed_by_destination(storage: Storage) -> None:
    add(storage)
    storage.index.record_outcome(claim(storage)[0], REFUSED, now=NOW)
    (job,) = claim(storage, JobKind.REPORT)
    plan = storage.index.plan_report(job, now=NOW, new_uid=lambda: next(UIDS))
    assert plan is not None
    facts = [WrittenDocumentFacts(plan=plan.report, sop_class_uid="1.2", path="documents/1/2")]
    storage.index.record_documents(job, plan, facts, destinations=["a", "b"], now=NOW)

    def take(destination: str | None) -> list[str | None]:
        jobs = storage.queue.claim(
            JobKind.DELIVER, owner="d", now=NOW, lease_seconds=9, limit=9, destination=destination
        )
        return [job.destination for job in jobs]

    assert storage.queue.next_due(JobKind.DELIVER, destination="c") is None
    assert storage.queue.next_due(JobKind.DELIVER, destination="b") == NOW
    assert take("c") == []
    assert take("b") == ["b"]
    assert take(None) == ["a"]


def test_released_leases_return_every_running_job(storage: Storage) -> None:
    add(storage, 1)
    add(storage, 2)
    claim(storage, limit=2)
    assert storage.queue.release_leases(now=NOW) == 2
    assert [job.attempts for job in claim(storage, limit=9)] == [2, 2]


def _drain(storage: Storage, owner: str, start: threading.Barrier, taken: list[str]) -> None:
    start.wait(20)
    while True:
        jobs = storage.queue.claim(
            JobKind.ANALYSE, owner=owner, now=NOW, lease_seconds=600, limit=3
        )
        if not jobs:
            return
        taken.extend(job.key for job in jobs)
        for job in jobs:
            storage.queue.settle(job, now=NOW)


def test_no_job_is_given_to_two_workers(storage: Storage) -> None:
    for number in range(40):
        add(storage, number, study=f"1.4.{number % 7}")
    start = threading.Barrier(6)
    taken: list[list[str]] = [[] for _ in range(6)]
    threads = [
        threading.Thread(target=_drain, args=(storage, f"w{n}", start, taken[n])) for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    counts = Counter(itertools.chain.from_iterable(taken))
    assert len(counts) == 40
    assert set(counts.values()) == {1}


def test_two_nodes_on_one_postgresql_share_the_work(
    tmp_path: Path, new_database_url: Callable[[], str]
) -> None:
    """Two engines, as in two processes: nothing but the database is between them."""
    url = new_database_url()
    with (
        opened_store(tmp_path, database_url=url) as one,
        opened_store(tmp_path, database_url=url) as other,
    ):
        for number in range(60):
            add(one if number % 2 else other, number, study=f"1.4.{number % 5}")
        start = threading.Barrier(4)
        taken: list[list[str]] = [[] for _ in range(4)]
        threads = [
            threading.Thread(target=_drain, args=(node, name, start, taken[n]))
            for n, (node, name) in enumerate([(one, "a"), (one, "b"), (other, "c"), (other, "d")])
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(itertools.chain.from_iterable(taken)) == sorted(map(str, range(1, 61)))
        assert one.queue.counts()[JobState.DONE] == 60


def test_two_nodes_that_receive_one_study_at_once_lose_no_image(
    tmp_path: Path, new_database_url: Callable[[], str]
) -> None:
    url = new_database_url()
    with (
        opened_store(tmp_path, database_url=url) as one,
        opened_store(tmp_path, database_url=url) as other,
    ):
        start = threading.Barrier(4)

        def send(node: Storage, numbers: range) -> None:
            start.wait(20)
            for number in numbers:
                add(node, number)

        threads = [
            threading.Thread(target=send, args=(node, numbers))
            for node, numbers in ((one, range(20)), (other, range(10, 30)))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(one.index.outcomes("1.4.1")) == 30
        assert only_reports(one) == [30]


def only_reports(storage: Storage) -> list[int]:
    return [job.generation for job in storage.queue.jobs() if job.kind is JobKind.REPORT]


def test_a_command_beside_the_node_uses_the_same_queue(tmp_path: Path) -> None:
    with opened_store(tmp_path) as node:
        add(node)
        guest = open_storage(store_settings(tmp_path))
        try:
            assert guest.queue.drop(only(guest, JobKind.ANALYSE).id, now=NOW)
        finally:
            guest.close()
        assert only(node, JobKind.ANALYSE).state is JobState.DROPPED


@pytest.mark.parametrize("kind", list(JobKind))
def test_an_empty_queue_has_nothing_due(storage: Storage, kind: JobKind) -> None:
    assert claim(storage, kind) == []
    assert storage.queue.next_due(kind) is None
