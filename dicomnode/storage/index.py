"""`ports.Index`: instances, outcomes, reports and deliveries, each method one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any

from sqlalchemy import Connection, select

from dicomnode.errors import NotInStore
from dicomnode.findings import NotEvaluated, Outcome
from dicomnode.jobs import Job, JobKind
from dicomnode.logs import get_logger
from dicomnode.ports import (
    Acceptance,
    Clock,
    Delivery,
    NewUid,
    ReceivedInstance,
    ReportPlan,
    StoredInstance,
    StudySummary,
    WrittenDocument,
    WrittenDocumentFacts,
)
from dicomnode.storage import acceptance, plans, records, summaries, transitions
from dicomnode.storage import outcomes as findings
from dicomnode.storage.database import Database
from dicomnode.storage.schema import conflicts, documents, instances, jobs, studies

log = get_logger(__name__)


class SqlIndex:
    """The index in the database.

    What settles a job raises `LeaseLost` and records nothing when the worker does not hold
    the job any more; `NotInStore` names an id that does not exist.
    """

    def __init__(self, database: Database, *, clock: Clock = lambda: datetime.now(UTC)) -> None:
        self._database = database
        self._clock = clock

    # ------------------------------------------------------------ instances

    def accept(
        self, received: ReceivedInstance, *, path: str, now: datetime, report_due_at: datetime
    ) -> Acceptance:
        return acceptance.accept(
            self._database, received, path=path, now=now, report_due_at=report_due_at
        )

    def record_conflict(self, received: ReceivedInstance, *, path: str) -> None:
        acceptance.record_conflict(self._database, received, path=path)

    def lookup(self, sop_instance_uid: str) -> StoredInstance | None:
        row = self._row(select(instances).where(instances.c.sop_instance_uid == sop_instance_uid))
        return records.stored_instance(row) if row is not None else None

    def instance(self, instance_id: int) -> StoredInstance:
        row = self._row(select(instances).where(instances.c.id == instance_id))
        if row is None:
            raise NotInStore(f"no instance with id {instance_id} in the index")
        return records.stored_instance(row)

    def is_own_document(self, sop_instance_uid: str) -> bool:
        """Planned documents included: a PACS may send one back at once."""
        return (
            self._row(
                select(documents.c.id).where(documents.c.sop_instance_uid == sop_instance_uid)
            )
            is not None
        )

    def named_paths(self, paths: Iterable[str]) -> set[str]:
        """Those of `paths` that an instance or a conflict names. A file is named after its
        SOP Instance UID, by which both tables are indexed."""
        asked = list(paths)

        def work(connection: Connection) -> set[str]:
            named: set[str] = set()
            for start in range(0, len(asked), 500):
                some = asked[start : start + 500]
                uids = [PurePath(path).name.rsplit(".", 2)[0] for path in some]
                for table in (instances, conflicts):
                    held = select(table.c.path).where(table.c.sop_instance_uid.in_(uids))
                    named.update(connection.execute(held).scalars())
            return named.intersection(asked)

        return self._database.read(work)

    # ------------------------------------------------------------ outcomes and reports

    def record_outcome(self, job: Job, outcome: Outcome, *, now: datetime) -> None:
        def work(connection: Connection) -> None:
            findings.record_outcome(self._database, connection, job, outcome, now=now)

        self._database.write(work)

    def record_analysis_failure(
        self, job: Job, outcome: NotEvaluated, *, error: str, error_code: str, now: datetime
    ) -> None:
        """As the port says; a lost lease is logged, because there is nothing left to decide."""

        def work(connection: Connection) -> bool:
            return findings.record_failure(
                self._database,
                connection,
                job,
                outcome,
                error=error,
                error_code=error_code,
                now=now,
            )

        if not self._database.write(work):
            log.warning("job.lease_lost", job_id=job.id, kind=job.kind.value)

    def plan_report(self, job: Job, *, now: datetime, new_uid: NewUid) -> ReportPlan | None:
        """As the port says; the job is settled when the answer is None."""

        def work(connection: Connection) -> ReportPlan | None:
            return plans.plan_report(self._database, connection, job, now=now, new_uid=new_uid)

        return self._database.write(work)

    def record_documents(
        self,
        job: Job,
        plan: ReportPlan,
        documents: Sequence[WrittenDocumentFacts],
        *,
        destinations: Sequence[str],
        now: datetime,
    ) -> None:
        def work(connection: Connection) -> None:
            plans.record_documents(
                self._database,
                connection,
                job,
                plan,
                documents,
                destinations=destinations,
                now=now,
            )

        self._database.write(work)

    # ------------------------------------------------------------ deliveries

    def record_delivery(self, job: Job, *, status: int, now: datetime) -> None:
        """What the destination answered; the DELIVER job is DONE."""

        def work(connection: Connection) -> None:
            transitions.hold(self._database, connection, job)
            transitions.settle(connection, job, again=False, now=now, status=status)

        self._database.write(work)

    def document(self, document_id: int) -> WrittenDocument:
        row = self._row(_written().where(documents.c.id == document_id))
        if row is None:
            raise NotInStore(f"no written document with id {document_id} in the index")
        return records.written_document(row)

    def documents(self, study_instance_uid: str) -> list[WrittenDocument]:
        """Oldest revision first, the report before its heatmaps."""
        rows = self._rows(
            _written()
            .where(documents.c.study_instance_uid == study_instance_uid)
            .order_by(documents.c.revision, documents.c.id)
        )
        return [records.written_document(row) for row in rows]

    def deliveries(self, study_instance_uid: str) -> list[Delivery]:
        rows = self._rows(
            select(jobs)
            .where(
                jobs.c.study_instance_uid == study_instance_uid,
                jobs.c.kind == JobKind.DELIVER.value,
            )
            .order_by(jobs.c.document_id, jobs.c.destination)
        )
        return [records.delivery(row) for row in rows]

    def turnaround_start(self, study_instance_uid: str, revision: int) -> datetime | None:
        row = self._row(summaries.turnaround_start(revision, study_instance_uid))
        return row["received_at"] if row is not None else None

    # ------------------------------------------------------------ reading

    def studies(
        self, *, limit: int = 50, offset: int = 0, state: str | None = None
    ) -> list[StudySummary]:
        """Newest first."""

        def work(connection: Connection) -> list[StudySummary]:
            return summaries.summaries(
                connection, now=self._clock(), limit=limit, offset=offset, state=state
            )

        return self._database.read(work)

    def study(self, study_instance_uid: str) -> StudySummary | None:
        def work(connection: Connection) -> list[StudySummary]:
            return summaries.summaries(
                connection, now=self._clock(), study_instance_uid=study_instance_uid
            )

        return next(iter(self._database.read(work)), None)

    def outcomes(self, study_instance_uid: str) -> list[tuple[StoredInstance, Outcome | None]]:
        """Every image in the order of a report; None for one that has no outcome yet."""
        return [
            (records.stored_instance(row), _outcome(row))
            for row in self._rows(summaries.outcomes_of(study_instance_uid))
        ]

    def label_keys(self, study_instance_uid: str) -> tuple[str, str] | None:
        """Accession number and patient id of a study, to join labels with. Patient data: for
        the import of labels only."""
        row = self._row(select(studies).where(studies.c.study_instance_uid == study_instance_uid))
        return (row["accession_number"], row["patient_id"]) if row is not None else None

    def _row(self, statement: Any) -> Any:
        return self._database.read(lambda c: c.execute(statement).mappings().first())

    def _rows(self, statement: Any) -> Sequence[Any]:
        return self._database.read(lambda c: c.execute(statement).mappings().all())


def _written() -> Any:
    return select(documents).where(documents.c.written_at.is_not(None))


def _outcome(row: Any) -> Outcome | None:
    if row["outcome_id"] is None:
        return None
    prefix = "outcome_"
    return records.outcome(
        {name.removeprefix(prefix): row[name] for name in row if name.startswith(prefix)}
    )
