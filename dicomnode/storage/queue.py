"""`ports.Queue`: jobs, leases and dead letters."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, case, func, or_, select, update

from dicomnode.jobs import Job, JobKind, JobState
from dicomnode.logs import get_logger
from dicomnode.storage import outcomes, plans, records, transitions
from dicomnode.storage.database import Database, scalar
from dicomnode.storage.schema import jobs
from dicomnode.storage.transitions import DONE, DROPPED, FAILED, FRESH, QUEUED, RELEASED, RUNNING

log = get_logger(__name__)


class SqlQueue:
    """The queue in the database. A worker that lost its lease changes nothing: what it tries
    then is logged as `job.lease_lost` and left to whoever holds the job now."""

    def __init__(self, database: Database) -> None:
        self._database = database

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

        On PostgreSQL rows that another node is claiming are skipped, not waited for.
        """
        due = _due(kind, destination, now)
        # workers ask often and mostly in vain: that should not cost the writer's turn
        peek = select(jobs.c.id).where(or_(*due)).limit(1)
        if self._database.read(lambda connection: scalar(connection, peek)) is None:
            return []

        def work(connection: Connection) -> list[Job]:
            rows: list[Any] = []
            for condition in due:
                rows += connection.execute(self._oldest(condition, limit)).all()
            rows.sort(key=lambda row: (row.run_at, row.id))
            chosen = [row.id for row in rows[:limit]]
            lease = {"lease_owner": owner, "lease_until": now + timedelta(seconds=lease_seconds)}
            leased = connection.execute(
                update(jobs)
                .where(jobs.c.id.in_(chosen))
                .values(**lease, state=RUNNING, attempts=jobs.c.attempts + 1)
                .returning(*jobs.c)
            ).mappings()
            found = [records.job(row) for row in leased]
            return sorted(found, key=lambda job: (job.run_at, job.id))

        return self._database.write(work)

    def renew(self, job: Job, *, until: datetime) -> bool:
        """Prolong a lease; False when it was lost."""
        statement = update(jobs).where(transitions.held(job)).values(lease_until=until)
        return self._changed(statement) == 1

    def settle(self, job: Job, *, now: datetime) -> None:
        """RUNNING -> DONE, or -> QUEUED when the generation grew meanwhile."""

        def work(connection: Connection) -> None:
            transitions.settle(connection, job, again=False, now=now)

        self._database.write(work)

    def retry_at(self, job: Job, *, when: datetime, error: str, error_code: str) -> None:
        """RUNNING -> QUEUED, not before `when` (or later, if a late image asks for that)."""
        values = {
            **RELEASED,
            "state": QUEUED,
            "run_at": case((jobs.c.run_at > when, jobs.c.run_at), else_=when),
            "last_error": records.clean(error),
            "error_code": records.clean(error_code, 64),
        }
        self._release(job, values)

    def give_back(self, job: Job, *, now: datetime) -> None:  # noqa: ARG002 - the port's
        """RUNNING -> QUEUED at once, the attempt not counted (orderly shutdown)."""
        # `run_at` is past already, unless a late image moved it: then it holds
        self._release(job, {**RELEASED, "state": QUEUED, "attempts": job.attempts - 1})

    def dead_letter(self, job: Job, *, error: str, error_code: str, now: datetime) -> None:
        """RUNNING -> FAILED. An ANALYSE job leaves the outcome `INFERENCE_FAILED`, so that its
        study can be reported; a REPORT job gives its open plan up, and is QUEUED again when
        another image came meanwhile."""

        def work(connection: Connection) -> bool:
            facts: dict[str, Any] = {"error": error, "error_code": error_code, "now": now}
            if job.kind is JobKind.ANALYSE:
                refusal = outcomes.analysis_failed(error_code)
                return outcomes.record_failure(self._database, connection, job, refusal, **facts)
            transitions.lock_study(self._database, connection, job.study_instance_uid)
            was_held = transitions.dead_letter(connection, job, **facts)
            if was_held and job.kind is JobKind.REPORT:
                plans.abandon(connection, job.study_instance_uid)
            return bool(was_held)

        if not self._database.write(work):
            _log_lease_lost(job)

    def release_leases(self, *, now: datetime) -> int:  # noqa: ARG002 - the port's
        """RUNNING -> QUEUED for all: only for the single owner of the database at start."""
        return self._changed(
            update(jobs).where(jobs.c.state == RUNNING).values(**RELEASED, state=QUEUED)
        )

    def jobs(self, *, state: JobState | None = None, limit: int = 100) -> list[Job]:
        """Newest first."""
        statement = select(jobs).order_by(jobs.c.id.desc()).limit(limit)
        if state is not None:
            statement = statement.where(jobs.c.state == state.value)
        rows = self._database.read(lambda c: c.execute(statement).mappings().all())
        return [records.job(row) for row in rows]

    def requeue(self, job_id: int, *, now: datetime) -> bool:
        """FAILED or DROPPED -> QUEUED with attempts 0, as if it were new; False when the job is
        in another state. The report of an ANALYSE job's study is made due again after it."""

        def work(connection: Connection) -> bool:
            row = connection.execute(
                update(jobs)
                .where(jobs.c.id == job_id, jobs.c.state.in_((FAILED, DROPPED)))
                .values(**FRESH, state=QUEUED, created_at=now, run_at=now)
                .returning(jobs.c.kind, jobs.c.study_instance_uid)
            ).first()
            if row is None:
                return False
            if row.kind == JobKind.ANALYSE.value:
                transitions.report_again(
                    connection, row.study_instance_uid, states=(DONE, FAILED), now=now
                )
            return True

        return self._database.write(work)

    def drop(self, job_id: int, *, now: datetime) -> bool:
        """QUEUED or FAILED -> DROPPED; False when the job is in another state."""
        return bool(
            self._changed(
                update(jobs)
                .where(jobs.c.id == job_id, jobs.c.state.in_((QUEUED, FAILED)))
                .values(state=DROPPED, settled_at=now)
            )
        )

    def counts(self) -> dict[JobState, int]:
        """Jobs by state; states without jobs are left out."""
        statement = select(jobs.c.state, func.count()).group_by(jobs.c.state)
        rows = self._database.read(lambda connection: connection.execute(statement).all())
        return {JobState(state): count for state, count in rows}

    def next_due(self, kind: JobKind, *, destination: str | None = None) -> datetime | None:
        """When a job may next be claimed: the earliest `run_at` or end of a lease. A report
        that waits for its images has no such time."""
        waiting, leased = _states(kind, destination)
        statement = select(
            select(func.min(jobs.c.run_at)).where(waiting).scalar_subquery(),
            select(func.min(jobs.c.lease_until)).where(leased).scalar_subquery(),
        )
        times = self._database.read(lambda connection: connection.execute(statement).one())
        return min((time for time in times if time is not None), default=None)

    def _oldest(self, condition: ColumnElement[bool], limit: int) -> Select[Any]:
        statement = (
            select(jobs.c.id, jobs.c.run_at)
            .where(condition)
            .order_by(jobs.c.run_at, jobs.c.id)
            .limit(limit)
        )
        if self._database.dialect == "sqlite":
            return statement
        return statement.with_for_update(skip_locked=True)

    def _release(self, job: Job, values: dict[str, Any]) -> None:
        if not self._changed(update(jobs).where(transitions.held(job)).values(values)):
            _log_lease_lost(job)

    def _changed(self, statement: Any) -> int:
        return int(self._database.write(lambda connection: connection.execute(statement).rowcount))


def _states(
    kind: JobKind, destination: str | None
) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Jobs of a kind that wait, and that are leased."""
    of_kind = jobs.c.kind == kind.value
    if kind is not JobKind.DELIVER:
        of_kind = and_(of_kind, jobs.c.destination.is_(None))  # uses the whole index
    elif destination is not None:
        of_kind = and_(of_kind, jobs.c.destination == destination)
    waiting = and_(of_kind, jobs.c.state == QUEUED)
    leased = and_(of_kind, jobs.c.state == RUNNING)
    if kind is JobKind.REPORT:
        free = ~transitions.has_pending_analysis()
        return and_(waiting, free), and_(leased, free)
    return waiting, leased


def _due(
    kind: JobKind, destination: str | None, now: datetime
) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    waiting, leased = _states(kind, destination)
    return and_(waiting, jobs.c.run_at <= now), and_(leased, jobs.c.lease_until <= now)


def _log_lease_lost(job: Job) -> None:
    log.warning("job.lease_lost", job_id=job.id, kind=job.kind.value, attempts=job.attempts)
