"""What one received instance changes in the database.

This is on the way between a C-STORE-RQ and its response, so the statements are prepared
once per dialect (`storage.prepared`).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Dialect, Table, bindparam, case, insert, select

from dicomnode.jobs import JobKind
from dicomnode.ports import Acceptance, ReceivedInstance
from dicomnode.storage.database import Database, IntegrityRefused, dialect_insert
from dicomnode.storage.prepared import Prepared
from dicomnode.storage.records import clean, conflict_values, instance_values, new_job
from dicomnode.storage.schema import conflicts, instances, jobs, studies
from dicomnode.storage.transitions import late_image


def accept(
    database: Database,
    received: ReceivedInstance,
    *,
    path: str,
    now: datetime,
    report_due_at: datetime,
) -> Acceptance:
    """See `ports.Index.accept`."""
    statements = _statements(database.engine.dialect)

    def work(connection: Connection) -> Acceptance:
        held = statements.identity.run(connection, {"uid": received.sop_instance_uid})
        if held is not None:
            same = held == _identity(received)
            return Acceptance.DUPLICATE if same else Acceptance.CONFLICT
        statements.study.run(connection, _study_values(received))
        kept = statements.instance.run(connection, instance_values(received, path))
        assert kept is not None  # RETURNING
        (instance_id,) = kept
        if not received.own_product:
            study = received.study_instance_uid
            analyse = new_job(JobKind.ANALYSE, str(instance_id), study, now=now, run_at=now)
            report = new_job(JobKind.REPORT, study, study, now=now, run_at=report_due_at)
            statements.analyse.run(connection, analyse)
            statements.report.run(connection, report)
        return Acceptance.NEW

    try:
        return database.write(work)
    except IntegrityRefused:
        # two nodes were given the same instance at once; now the other one's row is there
        return database.write(work)


def record_conflict(database: Database, received: ReceivedInstance, *, path: str) -> None:
    """See `ports.Index.record_conflict`."""
    statement = dialect_insert(database.dialect, conflicts).on_conflict_do_nothing()
    values = conflict_values(received, path)

    def work(connection: Connection) -> None:
        connection.execute(statement, values)

    database.write(work)


def _identity(received: ReceivedInstance) -> tuple[str, str, str]:
    return received.digest, received.study_instance_uid, received.series_instance_uid


def _study_values(received: ReceivedInstance) -> dict[str, Any]:
    return {
        "study_instance_uid": received.study_instance_uid,
        "first_received_at": received.received_at,
        "last_received_at": received.received_at,
        "accession_number": clean(received.accession_number, 64),
        "patient_id": clean(received.patient_id, 64),
    }


@dataclass(frozen=True, kw_only=True)
class _Statements:
    """Everything that `accept` runs, ready to be given its values."""

    identity: Prepared
    study: Prepared
    instance: Prepared
    analyse: Prepared
    report: Prepared


@functools.cache
def _statements(dialect: Dialect) -> _Statements:
    identity = select(
        instances.c.digest, instances.c.study_instance_uid, instances.c.series_instance_uid
    ).where(instances.c.sop_instance_uid == bindparam("uid"))
    report = dialect_insert(dialect.name, jobs)
    report_again = report.on_conflict_do_update(
        index_elements=[jobs.c.kind, jobs.c.key], set_=late_image(report.excluded)
    )
    study = _touch_study(dialect.name)
    instance = insert(instances).returning(instances.c.id)
    return _Statements(
        identity=Prepared(identity, dialect),
        study=Prepared(study, dialect, _given(studies)),
        instance=Prepared(instance, dialect, _given(instances)),
        analyse=Prepared(insert(jobs), dialect, _given(jobs)),
        report=Prepared(report_again, dialect, _given(jobs)),
    )


def _given(table: Table) -> tuple[str, ...]:
    """The columns that a new row is given: what must not be null, and is not numbered."""
    return tuple(c.name for c in table.c if not c.nullable and c.name != "id")


def _touch_study(dialect: str) -> Any:
    """Make or lock the study's row; the first number that is not empty stays."""
    row = dialect_insert(dialect, studies)
    new, old = row.excluded, studies.c
    later = new.last_received_at > old.last_received_at
    return row.on_conflict_do_update(
        index_elements=[old.study_instance_uid],
        set_={
            "last_received_at": case((later, new.last_received_at), else_=old.last_received_at),
            "accession_number": case(
                (old.accession_number == "", new.accession_number), else_=old.accession_number
            ),
            "patient_id": case((old.patient_id == "", new.patient_id), else_=old.patient_id),
        },
    )
