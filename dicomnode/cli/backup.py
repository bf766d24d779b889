"""`dicomnode backup` and `dicomnode restore`."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from dicomnode.cli.exits import DONE, FAILED
from dicomnode.cli.serve import ConfigOption
from dicomnode.config import load
from dicomnode.jobs import JobState

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def backup(
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="Folder of the backups.")],
    config: ConfigOption = None,
    models: Annotated[
        bool, typer.Option("--models/--no-models", help="Also the model versions.")
    ] = True,
    full: Annotated[
        bool, typer.Option("--full", help="Copy also what the last backup holds already.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read the whole backup again afterwards.")
    ] = False,
    json: JsonOption = False,
) -> int:
    """Back up database, films, documents and models while the node runs."""
    settings = load(config)
    from dicomnode.storage.backup import take_backup, verify_backup

    with _progress(quiet=json) as told:
        taken = take_backup(settings, target, config=config, models=models, full=full, told=told)
        if verify:
            verify_backup(taken.folder, told=told)
    manifest = taken.manifest
    facts = {
        "backup": str(taken.folder),
        "created_at": manifest.created_at,
        "studies": manifest.studies,
        "instances": manifest.instances,
        "files": manifest.files,
        "bytes": manifest.bytes,
        "copied_files": taken.copied_files,
        "copied_bytes": taken.copied_bytes,
        "linked_files": taken.linked_files,
        "models": list(manifest.models),
        "verified": verify,
        "missing": list(manifest.missing),
        "altered": list(manifest.altered),
    }
    if json:
        typer.echo(json_module.dumps(facts, indent=2))
    else:
        typer.echo(
            f"{taken.folder}: {manifest.studies} studies, {manifest.instances} images, "
            f"{manifest.files} files, {manifest.bytes} bytes; "
            f"{taken.copied_files} copied ({taken.copied_bytes} bytes), "
            f"{taken.linked_files} as in the last backup"
        )
    _tell_damage("the store no longer has", manifest.missing)
    _tell_damage("the store's bytes are not what the index says of", manifest.altered)
    return FAILED if manifest.missing or manifest.altered else DONE


def restore(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="A backup, or a folder of them: the newest.")
    ],
    config: ConfigOption = None,
    models: Annotated[
        bool, typer.Option("--models/--no-models", help="Also model versions that are not there.")
    ] = True,
    force_empty: Annotated[
        bool, typer.Option("--force-empty", help="Set a store that is there aside, and replace it.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Read and compare every file, change nothing.")
    ] = False,
    json: JsonOption = False,
) -> int:
    """Make the store that the settings name from a backup; no node may use it."""
    settings = load(config)
    from dicomnode.storage.backup import find_backup, restore_backup, verify_backup

    found = find_backup(source)
    if check:
        with _progress(quiet=json) as told:
            manifest = verify_backup(found, told=told)
        _tell(
            {"backup": str(found), "sound": True, "files": manifest.files},
            f"{found}: {manifest.files} files, {manifest.bytes} bytes, all as they were written",
            json=json,
        )
        return DONE
    with _progress(quiet=json) as told:
        restored = restore_backup(
            settings, found, models=models, force_empty=force_empty, told=told
        )
    manifest = restored.manifest
    jobs = {state.value: restored.jobs.get(state, 0) for state in JobState}
    waiting = jobs[JobState.QUEUED.value]
    _tell(
        {
            "backup": str(found),
            "created_at": manifest.created_at,
            "root": str(settings.storage.root),
            "store_id": restored.store_id,
            "studies": manifest.studies,
            "instances": manifest.instances,
            "models": list(restored.models),
            "jobs": jobs,
            "missing": list(manifest.missing),
            "replaced": None if restored.replaced is None else str(restored.replaced),
        },
        f"{settings.storage.root}: {manifest.studies} studies, {manifest.instances} images, as of "
        f"{manifest.created_at}; models: {', '.join(restored.models) or 'none'}\n"
        f"{waiting} jobs wait: a node that is started here does them, deliveries included",
        json=json,
    )
    if restored.replaced is not None and not json:
        typer.echo(
            f"what was there is in {restored.replaced}; films that came after the backup are sent "
            "again with `dicomnode send HOST:PORT` and its folder `instances`"
        )
    _tell_damage("the backup was taken without", manifest.missing)
    return FAILED if manifest.missing else DONE


def _tell(facts: dict[str, Any], line: str, *, json: bool) -> None:
    typer.echo(json_module.dumps(facts, indent=2) if json else line)


def _tell_damage(what: str, paths: tuple[str, ...]) -> None:
    from dicomnode.storage.backup.manifest import some_of

    if paths:
        typer.echo(f"backup_damaged: {what} {len(paths)} files: {some_of(paths)}", err=True)


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A bar on standard error, when somebody looks."""
    if quiet or not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task("")
        yield lambda stage, done, total: bar.update(
            task, description=stage, completed=done, total=total or None
        )
