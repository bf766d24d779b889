"""`dicomnode studies list|show` and `dicomnode report`."""

from __future__ import annotations

import json as json_module
from typing import Annotated

import typer
from rich.table import Table

from dicomnode.cli.serve import ConfigOption
from dicomnode.cli.store import opened
from dicomnode.cli.tables import print_table
from dicomnode.errors import DicomnodeError
from dicomnode.views import Views

app = typer.Typer(help="Look at the studies in the store.", no_args_is_help=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
StudyArgument = Annotated[str, typer.Argument(help="Study Instance UID.")]


@app.command("list")
def list_studies(
    config: ConfigOption = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    state: Annotated[str | None, typer.Option(help="Only studies in this state.")] = None,
    json: JsonOption = False,
) -> None:
    """List the newest studies."""
    with opened(config) as storage:
        found = Views(files=storage.files, index=storage.index).studies(limit, 0, state)
    if json:
        typer.echo(json_module.dumps(found, indent=2))
        return
    table = Table(box=None)
    for column in ("study", "state", "images", "evaluated", "refused", "revision", "received"):
        table.add_column(column, overflow="fold")
    for study in found:
        table.add_row(
            study["study_instance_uid"],
            study["state"],
            str(study["instances"]),
            str(study["evaluated"]),
            str(study["not_evaluated"]),
            str(study["revision"]),
            study["last_received_at"],
        )
    print_table(table)


@app.command("show")
def show(study_instance_uid: StudyArgument, config: ConfigOption = None) -> None:
    """Everything about one study, as JSON."""
    with opened(config) as storage:
        found = Views(files=storage.files, index=storage.index).study(study_instance_uid)
    if found is None:
        raise DicomnodeError(f"no study {study_instance_uid}; see `dicomnode studies list`")
    typer.echo(json_module.dumps(found, indent=2))


def report(
    study_instance_uid: StudyArgument, config: ConfigOption = None, json: JsonOption = False
) -> None:
    """Print the newest report of a study."""
    from dicomnode import sr

    with opened(config) as storage:
        found = Views(files=storage.files, index=storage.index).report(study_instance_uid)
    if found is None:
        raise DicomnodeError(
            f"no report of study {study_instance_uid} yet; see `dicomnode studies list`"
        )
    typer.echo(json_module.dumps(found, indent=2) if json else sr.report_text(found))
