"""What one received instance changes in the database.

This is on the way between a C-STORE-RQ and its response, so the statements are built
once per dialect: building them costs five times what running them does.
"""

from __future__ import annotations

import functools
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, case, insert, select

from dicomnode.jobs import JobKind
from dicomnode.ports import Acceptance, ReceivedInstance
from dicomnode.storage.database import Database, IntegrityRefused, dialect_insert
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
    statements = _Statements.of(database.dialect)

    def work(connection: Connection) -> Acceptance:
        held = connection.execute(statements.identity, {"uid": received.sop_instance_uid}).first()
        if held is not None:
            same = tuple(held) == _identity(received)
            return Acceptance.DUPLICATE if same else Acceptance.CONFLICT
        connection.execute(statements.study, _study_values(received))
        instance_id = connection.execute(
            statements.instance, instance_values(received, path)
        ).scalar_one()
        if not received.own_product:
            study = received.study_instance_uid
            analyse = new_job(JobKind.ANALYSE, str(instance_id), study, now=now, run_at=now)
            report = new_job(JobKind.REPORT, study, study, now=now, run_at=report_due_at)
            connection.execute(statements.analyse, analyse)
            connection.execute(statements.report, report)
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


class _Statements:
    """Everything that `accept` runs, ready to be given its values."""

    def __init__(self, dialect: str) -> None:
        self.identity = select(
            instances.c.digest, instances.c.study_instance_uid, instances.c.series_instance_uid
        ).where(instances.c.sop_instance_uid == bindparam("uid"))
        self.study = _touch_study(dialect)
        self.instance = insert(instances).returning(instances.c.id)
        self.analyse = insert(jobs)
        report = dialect_insert(dialect, jobs)
        self.report = report.on_conflict_do_update(
            index_elements=[jobs.c.kind, jobs.c.key], set_=late_image(report.excluded)
        )

    @staticmethod
    @functools.cache
    def of(dialect: str) -> _Statements:
        return _Statements(dialect)


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
