"""The arrows between the states of a job, as UPDATE statements.

Everything here runs inside a caller's transaction, so that a job is settled together
with what was done. `held` is the fence: owner and attempt number must still be those of
the claim, so a worker that lost its lease changes nothing.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    and_,
    case,
    exists,
    literal,
    or_,
    select,
    true,
    update,
)

from dicomnode.errors import LeaseLost
from dicomnode.jobs import Job, JobKind, JobState
from dicomnode.storage.database import Database
from dicomnode.storage.records import clean
from dicomnode.storage.schema import jobs, studies

QUEUED, RUNNING, DONE = JobState.QUEUED.value, JobState.RUNNING.value, JobState.DONE.value
FAILED, DROPPED = JobState.FAILED.value, JobState.DROPPED.value

RELEASED: dict[str, Any] = {"lease_owner": None, "lease_until": None}
FRESH: dict[str, Any] = {
    **RELEASED,
    "attempts": 0,
    "last_error": None,
    "error_code": None,
    "status": None,
    "settled_at": None,
}
"""What a job forgets when there is new work: its age and attempts were those of the old."""


def held(job: Job) -> ColumnElement[bool]:
    """Whether the worker that claimed `job` still holds it."""
    return and_(
        jobs.c.id == job.id,
        jobs.c.state == RUNNING,
        jobs.c.lease_owner == job.lease_owner,
        jobs.c.attempts == job.attempts,
    )


def lock_study(database: Database, connection: Connection, study_instance_uid: str) -> None:
    """One writer per study, so that what follows sees a study that stands still."""
    if database.dialect == "sqlite":
        return
    connection.execute(
        select(studies.c.study_instance_uid)
        .where(studies.c.study_instance_uid == study_instance_uid)
        .with_for_update()
    )


def hold(database: Database, connection: Connection, job: Job) -> RowMapping:
    """The job's row, locked. Raises `LeaseLost` when the worker does not hold it any more."""
    row = connection.execute(database.locked(select(jobs).where(held(job)))).mappings().first()
    if row is None:
        raise LeaseLost(
            f"job {job.id} ({job.kind.value}) is no longer held by this worker: its lease of "
            f"attempt {job.attempts} ran out and another took it, or it is settled"
        )
    return row


def settle(connection: Connection, job: Job, *, again: bool, now: datetime, **extra: Any) -> None:
    """RUNNING -> DONE; or -> QUEUED as new work, when `again` or the generation grew."""
    grew = true() if again else jobs.c.generation != job.generation
    anew = {**FRESH, "state": QUEUED, "created_at": now}
    done = {**RELEASED, "state": DONE, "settled_at": now, "last_error": None, "error_code": None}
    connection.execute(update(jobs).where(held(job), grew).values(anew))
    connection.execute(update(jobs).where(held(job)).values({**done, **extra}))


def dead_letter(
    connection: Connection, job: Job, *, error: str, error_code: str, now: datetime
) -> int:
    """RUNNING -> FAILED, or -> QUEUED when the generation grew: new work is not buried with
    the old. Returns the number of jobs that were held."""
    anew = {**FRESH, "state": QUEUED, "created_at": now}
    grew = jobs.c.generation != job.generation
    if connection.execute(update(jobs).where(held(job), grew).values(anew)).rowcount:
        return 1
    return connection.execute(
        update(jobs)
        .where(held(job))
        .values(
            **RELEASED,
            state=FAILED,
            last_error=clean(error),
            error_code=clean(error_code, 64),
            settled_at=now,
        )
    ).rowcount


def report_again(
    connection: Connection, study_instance_uid: str, *, states: tuple[str, ...], now: datetime
) -> None:
    """There may be more to say: a REPORT job in one of `states` -> QUEUED; a RUNNING one is
    told by its generation."""
    report = and_(jobs.c.kind == JobKind.REPORT.value, jobs.c.key == study_instance_uid)
    connection.execute(
        update(jobs).where(report, jobs.c.state == RUNNING).values(generation=jobs.c.generation + 1)
    )
    connection.execute(
        update(jobs)
        .where(report, jobs.c.state.in_(states))
        .values(**FRESH, state=QUEUED, created_at=now, run_at=now)
    )


def late_image(excluded: Any) -> dict[str, Any]:
    """What another image does to the REPORT job that its study has (ON CONFLICT)."""
    held_by_worker = jobs.c.state == RUNNING
    waiting = jobs.c.state == QUEUED
    active = or_(held_by_worker, waiting)
    later = and_(waiting, jobs.c.run_at > excluded.run_at)
    return {
        "generation": jobs.c.generation + 1,
        "state": case((held_by_worker, RUNNING), else_=QUEUED),
        "run_at": case((later, jobs.c.run_at), else_=excluded.run_at),
        "attempts": case((held_by_worker, jobs.c.attempts), else_=0),
        "created_at": case((active, jobs.c.created_at), else_=excluded.created_at),
        "last_error": case((active, jobs.c.last_error), else_=None),
        "error_code": case((active, jobs.c.error_code), else_=None),
        "settled_at": None,
    }


def has_pending_analysis() -> ColumnElement[bool]:
    """Whether images of the (correlated) REPORT job's study are still to be analysed."""
    analysis = jobs.alias("analysis")
    return exists(
        select(literal(1))
        .select_from(analysis)
        .where(
            analysis.c.study_instance_uid == jobs.c.study_instance_uid,
            analysis.c.kind == JobKind.ANALYSE.value,
            analysis.c.state.in_((QUEUED, RUNNING)),
        )
        .correlate(jobs)
    )
