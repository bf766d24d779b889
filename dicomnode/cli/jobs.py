"""`dicomnode queue list|retry|drop`: the jobs and the dead letters."""

from __future__ import annotations

import json as json_module
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from dicomnode.cli.exits import DONE, NOTHING_TO_DO, exits
from dicomnode.cli.serve import ConfigOption
from dicomnode.cli.store import opened
from dicomnode.cli.tables import print_table
from dicomnode.errors import DicomnodeError
from dicomnode.jobs import Job, JobState

app = typer.Typer(help="Look at the queue, retry or drop jobs.", no_args_is_help=True)


@app.command("list")
def list_jobs(
    config: ConfigOption = None,
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """List jobs, newest first; `--state failed` shows the dead letters."""
    with opened(config) as storage:
        jobs = storage.queue.jobs(state=state, limit=limit)
    if json:
        typer.echo(json_module.dumps([_facts(job) for job in jobs], indent=2))
        return
    table = Table(box=None)
    for column in ("job", "kind", "state", "attempts", "next run", "study", "error"):
        table.add_column(column, overflow="fold")
    for job in jobs:
        table.add_row(
            str(job.id),
            job.kind.value + (f" to {job.destination}" if job.destination else ""),
            job.state.value,
            str(job.attempts),
            job.run_at.isoformat(timespec="seconds") if job.state is JobState.QUEUED else "",
            job.study_instance_uid,
            job.last_error or "",
        )
    print_table(table)


@app.command("retry")
@exits
def retry(
    job_ids: Annotated[list[int] | None, typer.Argument(help="Job numbers.")] = None,
    all_failed: Annotated[bool, typer.Option("--all-failed", help="Every dead letter.")] = False,
    config: ConfigOption = None,
) -> int:
    """Queue dead letters or dropped jobs again."""
    with opened(config) as storage:
        chosen = job_ids or []
        if all_failed:
            chosen = [job.id for job in storage.queue.jobs(state=JobState.FAILED, limit=10_000)]
        return _each(
            chosen,
            lambda number: storage.queue.requeue(number, now=datetime.now(UTC)),
            done="queued again",
            refused="is neither failed nor dropped",
        )


@app.command("drop")
@exits
def drop(
    job_ids: Annotated[list[int], typer.Argument(help="Job numbers.")],
    config: ConfigOption = None,
) -> int:
    """Give a job up on purpose; `queue retry` takes it back."""
    with opened(config) as storage:
        return _each(
            job_ids,
            lambda number: storage.queue.drop(number, now=datetime.now(UTC)),
            done="dropped",
            refused="is neither queued nor failed",
        )


def _each(job_ids: list[int], change: Callable[[int], bool], *, done: str, refused: str) -> int:
    if not job_ids:
        typer.echo("no such jobs")
        return NOTHING_TO_DO
    wrong = []
    for number in job_ids:
        if change(number):
            typer.echo(f"job {number} {done}")
        else:
            wrong.append(number)
    if wrong:
        raise DicomnodeError(
            f"job {', '.join(map(str, wrong))} {refused}; see `dicomnode queue list`"
        )
    return DONE


def _facts(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "kind": job.kind.value,
        "state": job.state.value,
        "study_instance_uid": job.study_instance_uid,
        "destination": job.destination,
        "attempts": job.attempts,
        "created_at": job.created_at.isoformat(),
        "run_at": job.run_at.isoformat(),
        "error": job.last_error,
        "error_code": job.error_code,
    }
