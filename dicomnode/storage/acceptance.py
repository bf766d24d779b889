"""What one received instance changes in the database."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, case, insert, select
from sqlalchemy.exc import IntegrityError

from dicomnode.jobs import JobKind
from dicomnode.ports import Acceptance, ReceivedInstance
from dicomnode.storage.database import Database
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

    def work(connection: Connection) -> Acceptance:
        held = connection.execute(
            select(
                instances.c.digest,
                instances.c.study_instance_uid,
                instances.c.series_instance_uid,
            ).where(instances.c.sop_instance_uid == received.sop_instance_uid)
        ).first()
        if held is None:
            _insert(
                database,
                connection,
                received,
                path=path,
                now=now,
                report_due_at=report_due_at,
            )
            return Acceptance.NEW
        if tuple(held) == _identity(received):
            return Acceptance.DUPLICATE
        connection.execute(
            database.insert(conflicts)
            .values(conflict_values(received, path))
            .on_conflict_do_nothing()
        )
        return Acceptance.CONFLICT

    try:
        return database.write(work)
    except IntegrityError:
        # two nodes were given the same instance at once; now the other one's row is there
        return database.write(work)


def _identity(received: ReceivedInstance) -> tuple[str, str, str]:
    return received.digest, received.study_instance_uid, received.series_instance_uid


def _insert(
    database: Database,
    connection: Connection,
    received: ReceivedInstance,
    *,
    path: str,
    now: datetime,
    report_due_at: datetime,
) -> None:
    _touch_study(database, connection, received)
    row = insert(instances).values(instance_values(received, path)).returning(instances.c.id)
    instance_id = connection.execute(row).scalar_one()
    if received.own_product:
        return
    study = received.study_instance_uid
    connection.execute(
        insert(jobs).values(new_job(JobKind.ANALYSE, str(instance_id), study, now=now, run_at=now))
    )
    report = database.insert(jobs).values(
        new_job(JobKind.REPORT, study, study, now=now, run_at=report_due_at)
    )
    connection.execute(
        report.on_conflict_do_update(
            index_elements=[jobs.c.kind, jobs.c.key], set_=late_image(report.excluded)
        )
    )


def _touch_study(database: Database, connection: Connection, received: ReceivedInstance) -> None:
    """Make or lock the study's row; the first number that is not empty stays."""
    row = database.insert(studies).values(
        study_instance_uid=received.study_instance_uid,
        first_received_at=received.received_at,
        last_received_at=received.received_at,
        accession_number=clean(received.accession_number, 64),
        patient_id=clean(received.patient_id, 64),
    )
    new, old = row.excluded, studies.c
    connection.execute(
        row.on_conflict_do_update(
            index_elements=[studies.c.study_instance_uid],
            set_={
                "last_received_at": case(
                    (new.last_received_at > old.last_received_at, new.last_received_at),
                    else_=old.last_received_at,
                ),
                "accession_number": case(
                    (old.accession_number == "", new.accession_number),
                    else_=old.accession_number,
                ),
                "patient_id": case((old.patient_id == "", new.patient_id), else_=old.patient_id),
            },
        )
    )
