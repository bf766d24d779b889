"""`dicomnode labels import|export|list`: what readers and other systems say of the images."""

from __future__ import annotations

import contextlib
import getpass
import json as json_module
import os
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich.table import Table

from dicomnode.cli.exits import DONE, NOTHING_TO_DO, exits
from dicomnode.cli.serve import ConfigOption
from dicomnode.cli.store import opened
from dicomnode.cli.tables import print_table
from dicomnode.errors import ConfigError, DicomnodeError, LabelsRefused
from dicomnode.storage import labelfile, labelimport
from dicomnode.storage.labelimport import Effect, Imported, Policy
from dicomnode.storage.labels import class_name, origin

app = typer.Typer(help="Import, export and count labels.", no_args_is_help=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_TOLD = {
    Effect.NEW: "new",
    Effect.CHANGED: "changed",
    Effect.WITHDRAWN: "taken back",
    Effect.UNCHANGED: "said already",
    Effect.OLDER: "older than the label that is held, left out",
    Effect.REVIEWED: "a reader's review says otherwise, left out (--overrule-reviews)",
    Effect.UNKNOWN: "not in the store, left out",
}
_LINES_SHOWN = 20


@app.command("import")
@exits
def import_labels(
    file: Annotated[Path, typer.Argument(help="CSV: label and a UID or accession number.")],
    config: ConfigOption = None,
    source: Annotated[str, typer.Option(help="Of lines that name none. [import:FILE]")] = "",
    author: Annotated[str, typer.Option(help="Of lines that name none. [who runs this]")] = "",
    new_class: Annotated[
        list[str] | None, typer.Option(help="A class name that was not used before.")
    ] = None,
    skip_unknown: Annotated[
        bool, typer.Option("--skip-unknown", help="Leave out what the store does not hold.")
    ] = False,
    withdraw: Annotated[
        bool, typer.Option("--withdraw", help="An empty label takes back what was said.")
    ] = False,
    overrule_reviews: Annotated[
        bool, typer.Option("--overrule-reviews", help="Also replace what a reader reviewed.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say it, record nothing.")] = False,
    json: JsonOption = False,
) -> int:
    """Record the labels of a CSV file: all of them, or none when anything is wrong."""
    try:
        allowed = [class_name(name) for name in new_class or []]
        policy = Policy(
            default_source=f"import:{re.sub(r'[^A-Za-z0-9._-]', '_', file.name)[-100:]}",
            default_author=_login(),
            source=origin(source, "source") if source else "",
            author=origin(author, "author") if author else "",
            skip_unknown=skip_unknown,
            overrule_reviews=overrule_reviews,
        )
    except LabelsRefused as error:
        raise ConfigError([str(error)]) from error
    data = _content(file)
    try:
        read = labelfile.read_label_file(data, now=datetime.now(UTC), withdraw=withdraw)
        with opened(config) as storage:
            labelimport.require_known_classes(read.lines, storage.labels.classes(), allowed)
            done = labelimport.import_lines(storage.labels, read.lines, policy, dry_run=dry_run)
    except LabelsRefused as error:
        raise LabelsRefused(f"{file.name}: {error}") from error
    if json:
        typer.echo(json_module.dumps(_facts(done, read, dry_run=dry_run), indent=2))
    else:
        _tell(done, read, dry_run=dry_run)
    return DONE if done.recorded else NOTHING_TO_DO


@app.command("export")
@exits
def export_labels(
    file: Annotated[Path | None, typer.Argument(help="Where to. [standard output]")] = None,
    config: ConfigOption = None,
    history: Annotated[
        bool, typer.Option("--history", help="Also what does not hold any more.")
    ] = False,
) -> int:
    """Write the labels as CSV, which `labels import` takes."""
    with opened(config) as storage, _output(file) as stream:
        labels = storage.labels.history() if history else storage.labels.current_labels()
        written = labelfile.write_labels(stream, labels, history=history)
    if file is not None:
        typer.echo(f"{written} labels written to {file}")
    return DONE if written else NOTHING_TO_DO


@app.command("list")
def list_labels(config: ConfigOption = None, json: JsonOption = False) -> None:
    """Count studies and images by class."""
    with opened(config) as storage:
        counts, without = storage.labels.counts(), storage.labels.unlabelled()
    if json:
        classes = [
            {
                "label": count.label,
                "studies": count.studies,
                "images": count.instances,
                "newest": count.newest.isoformat(),
            }
            for count in counts
        ]
        typer.echo(json_module.dumps({"classes": classes, "unlabelled": without}, indent=2))
        return
    table = Table(box=None)
    for column in ("class", "studies", "images", "newest"):
        table.add_column(column, overflow="fold")
    for count in counts:
        newest = count.newest.isoformat(timespec="seconds")
        table.add_row(count.label, str(count.studies), str(count.instances), newest)
    print_table(table)
    typer.echo(f"{without} images without a label")


def _content(file: Path) -> bytes:
    """One byte more than is allowed at most: `read_label_file` refuses it then."""
    try:
        with file.open("rb") as stream:
            return stream.read(labelfile.MAXIMUM_BYTES + 1)
    except OSError as error:
        raise DicomnodeError(f"cannot read {file}: {error.strerror}") from error


@contextlib.contextmanager
def _output(file: Path | None) -> Iterator[TextIO]:
    """Standard output, or a file that is there as a whole or not at all, for its owner only."""
    if file is None:
        yield sys.stdout
        return
    part = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise DicomnodeError(f"cannot write {file}: {error.strerror}") from error


def _login() -> str:
    """Who runs this, as the system says it; a container may know a number only."""
    try:
        return origin(getpass.getuser(), "author")
    except (OSError, KeyError, LabelsRefused):
        return f"uid {os.getuid()}"


def _facts(done: Imported, read: labelfile.LabelFile, *, dry_run: bool) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "recorded": done.recorded,
        **{effect.value: len(done.effects.get(effect, ())) for effect in Effect},
        "superseded_lines": read.superseded,
        "columns_not_read": list(read.columns_left_out),
        "changes": [
            {"from": before, "to": after, "count": count}
            for (before, after), count in sorted(done.changes.items())
        ],
    }


def _tell(done: Imported, read: labelfile.LabelFile, *, dry_run: bool) -> None:
    for number in read.columns_left_out:
        typer.echo(f"column {number} is not read", err=True)
    if read.superseded:
        typer.echo(f"{read.superseded} superseded lines of a history left out")
    for effect, told in _TOLD.items():
        lines = done.effects.get(effect, ())
        if lines:
            typer.echo(f"{len(lines)} {told}{_where(effect, lines)}")
    for (before, after), count in sorted(done.changes.items()):
        typer.echo(f"  {before or '(none)'} -> {after or '(none)'}: {count}")
    if not done.recorded:
        typer.echo("nothing to do")
    elif dry_run:
        typer.echo("nothing was recorded (--dry-run)")


def _where(effect: Effect, lines: tuple[int, ...]) -> str:
    if effect not in (Effect.OLDER, Effect.REVIEWED, Effect.UNKNOWN):
        return ""
    shown = ", ".join(map(str, lines[:_LINES_SHOWN]))
    return f": lines {shown}" + (" ..." if len(lines) > _LINES_SHOWN else "")
