"""The read side: one line per study, and what belongs to it. No patient data."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    and_,
    case,
    exists,
    func,
    literal,
    select,
)

from dicomnode.jobs import JobKind
from dicomnode.ports import StudySummary
from dicomnode.storage.schema import document_images, documents, instances, jobs, outcomes, studies
from dicomnode.storage.transitions import FAILED, QUEUED, RUNNING


def summaries(
    connection: Connection,
    *,
    now: datetime,
    limit: int = 1,
    offset: int = 0,
    state: str | None = None,
    study_instance_uid: str | None = None,
) -> list[StudySummary]:
    """Newest first. A study with a dead letter is `failed` whatever else goes on."""
    statement = _summary(now).limit(limit).offset(offset)
    if state is not None:
        statement = statement.where(_state(now) == state)
    if study_instance_uid is not None:
        statement = statement.where(studies.c.study_instance_uid == study_instance_uid)
    return [_study_summary(row) for row in connection.execute(statement).mappings()]


def turnaround_start(revision: int, study_instance_uid: str) -> Select[Any]:
    """When the last image of that revision was received."""
    return (
        select(instances.c.received_at)
        .join_from(documents, document_images)
        .join(outcomes)
        .join(instances, instances.c.id == outcomes.c.instance_id)
        .where(
            documents.c.study_instance_uid == study_instance_uid,
            documents.c.revision == revision,
        )
        .order_by(instances.c.received_at.desc())
        .limit(1)
    )


def outcomes_of(study_instance_uid: str) -> Select[Any]:
    """Every image of a study with its current outcome, if it has one."""
    current = and_(outcomes.c.instance_id == instances.c.id, outcomes.c.superseded_at.is_(None))
    found = [column.label(f"outcome_{column.name}") for column in outcomes.c]
    return (
        select(*instances.c, *found)
        .join_from(instances, outcomes, current, isouter=True)
        .where(
            instances.c.study_instance_uid == study_instance_uid,
            instances.c.own_product.is_(False),
        )
        .order_by(instances.c.series_instance_uid, instances.c.sop_instance_uid)
    )


def _summary(now: datetime) -> Select[Any]:
    this = studies.c.study_instance_uid
    revision = select(func.max(documents.c.revision)).where(
        documents.c.study_instance_uid == this,
        documents.c.kind == "sr",
        documents.c.written_at.is_not(None),
    )
    failed_jobs = select(func.count()).where(
        jobs.c.study_instance_uid == this, jobs.c.state == FAILED
    )
    images = select(func.count()).where(
        instances.c.study_instance_uid == this, instances.c.own_product.is_(False)
    )
    return select(
        studies,
        _state(now).label("state"),
        images.scalar_subquery().label("instances"),
        _count_outcomes(evaluated=True).label("evaluated"),
        _count_outcomes(evaluated=False).label("not_evaluated"),
        failed_jobs.scalar_subquery().label("failed_jobs"),
        revision.scalar_subquery().label("revision"),
    ).order_by(studies.c.last_received_at.desc(), this)


def _count_outcomes(*, evaluated: bool) -> ColumnElement[int]:
    return (
        select(func.count())
        .select_from(outcomes)
        .join(instances, instances.c.id == outcomes.c.instance_id)
        .where(
            instances.c.study_instance_uid == studies.c.study_instance_uid,
            outcomes.c.superseded_at.is_(None),
            outcomes.c.evaluated.is_(evaluated),
        )
        .correlate(studies)
        .scalar_subquery()
    )


def _state(now: datetime) -> ColumnElement[str]:
    active = (QUEUED, RUNNING)
    not_settled = and_(
        jobs.c.state == QUEUED,
        jobs.c.attempts == 0,
        jobs.c.run_at > literal(now, jobs.c.run_at.type),
    )
    return case(
        (_has(jobs.c.state == FAILED), "failed"),
        (_has(not_settled, kind=JobKind.REPORT), "receiving"),
        (_has(jobs.c.state.in_(active), kind=JobKind.ANALYSE), "analysing"),
        (_has(jobs.c.state.in_(active), kind=JobKind.REPORT), "reporting"),
        (_has(jobs.c.state.in_(active), kind=JobKind.DELIVER), "delivering"),
        else_="done",
    )


def _has(condition: ColumnElement[bool], *, kind: JobKind | None = None) -> ColumnElement[bool]:
    job = select(literal(1)).where(
        jobs.c.study_instance_uid == studies.c.study_instance_uid, condition
    )
    if kind is not None:
        job = job.where(jobs.c.kind == kind.value)
    return exists(job.correlate(studies))


def _study_summary(row: RowMapping) -> StudySummary:
    return StudySummary(
        study_instance_uid=row["study_instance_uid"],
        state=row["state"],
        instances=row["instances"],
        evaluated=row["evaluated"],
        not_evaluated=row["not_evaluated"],
        failed_jobs=row["failed_jobs"],
        first_received_at=row["first_received_at"],
        last_received_at=row["last_received_at"],
        revision=row["revision"] or 0,
    )
