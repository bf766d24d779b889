"""`trainer retrain`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trainer.cli.output import Format, teller
from trainer.errors import NothingToDo

if TYPE_CHECKING:
    from trainer.retrain import Outcome, Preview, RetrainSettings

REFUSED = 1


def retrain(
    config: Annotated[Path, typer.Option(help="The retraining file; see docs/retraining.md.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Train nothing; say what would be used.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Train although nothing is new.")] = False,
    run: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the run; the same on all workers."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Only the outcome, as one JSON object.")
    ] = False,
    progress: Annotated[Format, typer.Option(help="For people, or JSON lines.")] = Format.HUMAN,
) -> None:
    """Train on the node's films and labels; publish what is not worse than what serves.

    Ends with 0 when a version was published, 1 when the candidate was refused or something
    failed, 3 when there is nothing new.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from trainer import retrain as program

    settings = program.load(config)
    if dry_run:
        _say_preview(settings, program.preview(settings), as_json=as_json)
        return
    tell = _quiet if as_json else teller(progress)
    try:
        outcome = program.retrain(settings, tell, run=run, force=force)
    except NothingToDo as error:
        if as_json:
            _print({"outcome": "nothing_new", "reasons": [str(error)]})
        raise
    if as_json:
        _print(outcome.to_json())
    elif outcome.outcome != "worker":
        _say(outcome, settings)
    if outcome.outcome == "refused":
        for reason in outcome.reasons:
            typer.echo(f"refused: {reason}", err=True)
        raise typer.Exit(REFUSED)


def _say(outcome: Outcome, settings: RetrainSettings) -> None:
    for sentence in (*outcome.warnings, *outcome.notes):
        typer.echo(f"note: {sentence}")
    base = settings.fit.out
    if outcome.outcome == "published":
        typer.echo(f"version {outcome.version} serves; see {outcome.folder}")
        if outcome.compared_with is not None:
            typer.echo(f"the way back: trainer models rollback --base {base}")
        return
    serving = "no version" if outcome.compared_with is None else f"version {outcome.compared_with}"
    typer.echo(f"{serving} goes on; the candidate is in {outcome.folder / 'candidate'}")
    typer.echo(
        "to publish it all the same: trainer models publish "
        f"{outcome.folder / 'candidate'} --base {base}"
    )


def _say_preview(settings: RetrainSettings, told: Preview, *, as_json: bool) -> None:
    if as_json:
        _print(told.to_json())
        return
    current = "none" if told.current_version is None else str(told.current_version)
    changed = "" if told.changed is None else f", {told.changed} new, gone or relabelled since"
    typer.echo(f"current version {current} in {settings.fit.out}{changed}")
    typer.echo(f"{told.films} films of {told.patients} patients")
    for name, counts in (*told.parts.items(), *told.sources.items()):
        facts = "  ".join(f"{label} {count}" for label, count in counts.items())
        typer.echo(f"  {name:<24} {facts}")
    for reason, count in told.skipped.items():
        typer.echo(f"left out: {count} labelled films, {reason}")
    for sentence in told.missing:
        typer.echo(f"missing: {sentence}")


def _quiet(event: str, facts: dict[str, Any]) -> None:
    del event, facts


def _print(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2))
