"""What was found on an instance, kept as a history: an outcome is superseded, not changed."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, insert, select, update

from dicomnode.findings import NotEvaluated, Outcome, Reason
from dicomnode.jobs import Job
from dicomnode.storage import transitions
from dicomnode.storage.database import Database, scalar
from dicomnode.storage.records import outcome_values
from dicomnode.storage.schema import outcomes


def record_outcome(
    database: Database, connection: Connection, job: Job, outcome: Outcome, *, now: datetime
) -> None:
    """Store what was found and settle the ANALYSE job. Raises `LeaseLost`."""
    transitions.lock_study(database, connection, job.study_instance_uid)
    transitions.hold(database, connection, job)
    supersede(connection, int(job.key), outcome, now=now)
    transitions.settle(connection, job, again=False, now=now)
    _say_it(connection, job, now=now)


def record_failure(
    database: Database,
    connection: Connection,
    job: Job,
    outcome: NotEvaluated,
    *,
    error: str,
    error_code: str,
    now: datetime,
) -> bool:
    """Store the refusal and dead-letter the ANALYSE job; False when its lease was lost."""
    transitions.lock_study(database, connection, job.study_instance_uid)
    if not transitions.dead_letter(connection, job, error=error, error_code=error_code, now=now):
        return False
    supersede(connection, int(job.key), outcome, now=now)
    _say_it(connection, job, now=now)
    return True


def analysis_failed(error_code: str) -> NotEvaluated:
    """The outcome of an ANALYSE job that was given up without one."""
    return NotEvaluated(
        reason=Reason.INFERENCE_FAILED, detail=f"The analysis was given up ({error_code})."
    )


def supersede(connection: Connection, instance_id: int, outcome: Outcome, *, now: datetime) -> None:
    """Make `outcome` the current one, unless the current one already states the same."""
    values = outcome_values(outcome)
    current = (outcomes.c.instance_id == instance_id, outcomes.c.superseded_at.is_(None))
    if scalar(connection, select(outcomes.c.statement).where(*current)) == values["statement"]:
        return
    connection.execute(update(outcomes).where(*current).values(superseded_at=now))
    connection.execute(insert(outcomes).values(instance_id=instance_id, recorded_at=now, **values))


def _say_it(connection: Connection, job: Job, *, now: datetime) -> None:
    """An outcome that comes after its study's report is a reason to report again."""
    transitions.report_again(
        connection, job.study_instance_uid, states=(transitions.DONE,), now=now
    )
