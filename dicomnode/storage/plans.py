"""Report plans: what the next report says and is called, fixed before it is built."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, delete, func, insert, select, update

from dicomnode.errors import NotInStore
from dicomnode.findings import Evaluated
from dicomnode.jobs import Job, JobKind
from dicomnode.ports import DocumentPlan, NewUid, ReportPlan, WrittenDocumentFacts
from dicomnode.storage import records, transitions
from dicomnode.storage.database import Database
from dicomnode.storage.schema import document_images, documents, instances, jobs, outcomes

_SR, _HEATMAP = "sr", "heatmap"


def plan_report(
    database: Database, connection: Connection, job: Job, *, now: datetime, new_uid: NewUid
) -> ReportPlan | None:
    """The open plan, or a new one. None, and the job is settled, when there is nothing new
    to say. Raises `LeaseLost`."""
    study = job.study_instance_uid
    transitions.lock_study(database, connection, study)
    transitions.hold(database, connection, job)
    report = _newest_report(connection, study)
    if report is not None and report["written_at"] is None:
        return _load(connection, report)
    current = _current_outcomes(connection, study)
    before = [] if report is None else _said(connection, report["id"])
    if not current or current == before:
        transitions.settle(connection, job, again=False, now=now)
        return None
    revision = 1 if report is None else report["revision"] + 1
    _insert(connection, study, revision, current, before, now=now, new_uid=new_uid)
    return _load(connection, _newest_report(connection, study))


def record_documents(
    database: Database,
    connection: Connection,
    job: Job,
    plan: ReportPlan,
    written: Sequence[WrittenDocumentFacts],
    *,
    destinations: Sequence[str],
    now: datetime,
) -> None:
    """Close the plan and queue its deliveries. Raises `LeaseLost`."""
    study = plan.study_instance_uid
    _require_all(plan, written)
    transitions.lock_study(database, connection, study)
    transitions.hold(database, connection, job)
    for document in written:
        document_id = _mark_written(connection, document, now=now)
        for destination in destinations:
            _queue_delivery(database, connection, study, document_id, destination, now=now)
    report = _newest_report(connection, study)
    # a plan that a crash left open may be older than the newest outcome
    outdated = report is None or _said(connection, report["id"]) != (
        _current_outcomes(connection, study)
    )
    transitions.settle(connection, job, again=outdated, now=now)


def _newest_report(connection: Connection, study: str) -> Any:
    return (
        connection.execute(
            select(documents)
            .where(documents.c.study_instance_uid == study, documents.c.kind == _SR)
            .order_by(documents.c.revision.desc())
            .limit(1)
        )
        .mappings()
        .first()
    )


def _current_outcomes(connection: Connection, study: str) -> list[int]:
    """Ids of the current outcomes of a study's images, in the order of a report."""
    return list(
        connection.execute(
            select(outcomes.c.id)
            .join_from(outcomes, instances)
            .where(
                instances.c.study_instance_uid == study,
                instances.c.own_product.is_(False),
                outcomes.c.superseded_at.is_(None),
            )
            .order_by(instances.c.series_instance_uid, instances.c.sop_instance_uid)
        ).scalars()
    )


def _said(connection: Connection, report_id: int) -> list[int]:
    return list(
        connection.execute(
            select(document_images.c.outcome_id)
            .where(document_images.c.document_id == report_id)
            .order_by(document_images.c.position)
        ).scalars()
    )


def _insert(
    connection: Connection,
    study: str,
    revision: int,
    current: list[int],
    before: list[int],
    *,
    now: datetime,
    new_uid: NewUid,
) -> None:
    common = {"study_instance_uid": study, "revision": revision, "planned_at": now}
    report_id = connection.execute(
        insert(documents)
        .values(**common, kind=_SR, sop_instance_uid=new_uid(), series_instance_uid=new_uid())
        .returning(documents.c.id)
    ).scalar_one()
    connection.execute(
        insert(document_images),
        [
            {"document_id": report_id, "position": position, "outcome_id": outcome_id}
            for position, outcome_id in enumerate(current)
        ],
    )
    shown = _showable(connection, current)
    if shown and shown != _showable(connection, before):
        heatmap = {"sop_instance_uid": new_uid(), "series_instance_uid": new_uid()}
        connection.execute(insert(documents).values(**common, kind=_HEATMAP, **heatmap))


def _showable(connection: Connection, outcome_ids: list[int]) -> list[int]:
    """Those of `outcome_ids` that have what a heatmap needs."""
    rows = connection.execute(
        select(outcomes).where(outcomes.c.id.in_(outcome_ids), outcomes.c.cam.is_not(None))
    ).mappings()
    found = {row["id"]: records.outcome(row) for row in rows}
    return [
        outcome_id
        for outcome_id in outcome_ids
        if isinstance(outcome := found.get(outcome_id), Evaluated) and outcome.display_path
    ]


def _load(connection: Connection, report: Any) -> ReportPlan:
    study, revision = report["study_instance_uid"], report["revision"]
    before = (
        connection.execute(
            select(documents)
            .where(
                documents.c.study_instance_uid == study,
                documents.c.kind == _SR,
                documents.c.revision < revision,
                documents.c.written_at.is_not(None),
            )
            .order_by(documents.c.revision.desc())
            .limit(1)
        )
        .mappings()
        .first()
    )
    planned = connection.execute(_planned(study, revision)).mappings().all()
    plans = [records.document_plan(row) for row in planned]
    return ReportPlan(
        study_instance_uid=study,
        revision=revision,
        planned_at=report["planned_at"],
        report=next(plan for plan in plans if plan.kind == _SR),
        heatmap=next((plan for plan in plans if plan.kind == _HEATMAP), None),
        images=tuple(_images(connection, report["id"])),
        predecessor_sop_instance_uid=before["sop_instance_uid"] if before else None,
        predecessor_series_instance_uid=before["series_instance_uid"] if before else None,
    )


def _planned(study: str, revision: int) -> Select[Any]:
    return (
        select(documents)
        .where(documents.c.study_instance_uid == study, documents.c.revision == revision)
        .order_by(documents.c.id)
    )


def _images(connection: Connection, report_id: int) -> list[Any]:
    """Pairs of instance and outcome, in the report's order."""
    image_rows = connection.execute(
        select(instances)
        .join_from(document_images, outcomes)
        .join(instances, instances.c.id == outcomes.c.instance_id)
        .where(document_images.c.document_id == report_id)
        .order_by(document_images.c.position)
    ).mappings()
    outcome_rows = connection.execute(
        select(outcomes)
        .join_from(document_images, outcomes)
        .where(document_images.c.document_id == report_id)
        .order_by(document_images.c.position)
    ).mappings()
    return [
        (records.stored_instance(image), records.outcome(found))
        for image, found in zip(image_rows.all(), outcome_rows.all(), strict=True)
    ]


def _require_all(plan: ReportPlan, written: Sequence[WrittenDocumentFacts]) -> None:
    due = {document.sop_instance_uid for document in plan.documents}
    found = {document.plan.sop_instance_uid for document in written}
    if due != found:
        raise ValueError(
            f"a plan of {len(due)} documents is closed with all of them at once; "
            f"{len(due - found)} are missing, {len(found - due)} are not part of it"
        )


def _mark_written(connection: Connection, document: WrittenDocumentFacts, *, now: datetime) -> int:
    plan: DocumentPlan = document.plan
    is_it = documents.c.sop_instance_uid == plan.sop_instance_uid
    found = connection.execute(select(documents.c.id).where(is_it)).scalar()
    if found is None:
        raise NotInStore(f"document {plan.sop_instance_uid} was never planned; plan it first")
    connection.execute(
        update(documents)
        .where(is_it)
        .values(
            written_at=func.coalesce(documents.c.written_at, now),
            sop_class_uid=document.sop_class_uid,
            path=document.path,
        )
    )
    return int(found)


def _queue_delivery(
    database: Database,
    connection: Connection,
    study: str,
    document_id: int,
    destination: str,
    *,
    now: datetime,
) -> None:
    key = f"{document_id}:{destination}"
    connection.execute(
        database.insert(jobs)
        .values(
            **records.new_job(JobKind.DELIVER, key, study, now=now, run_at=now),
            document_id=document_id,
            destination=destination,
        )
        .on_conflict_do_nothing()
    )


def abandon(connection: Connection, study: str) -> None:
    """Forget the study's open plan, whose job was given up. Its UIDs never left the node, and
    a plan that cannot be built must not stand before one that can."""
    is_open = (documents.c.study_instance_uid == study, documents.c.written_at.is_(None))
    ids = select(documents.c.id).where(*is_open)
    connection.execute(delete(document_images).where(document_images.c.document_id.in_(ids)))
    connection.execute(delete(documents).where(*is_open))
