"""`trainer audit`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainer.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from trainer.audit import Audit
    from trainer.data import Case

FOUND = 1
EXAMPLES = 3


def audit(
    data: Annotated[
        Path | None, typer.Option(help="A folder per class, a folder with manifest.csv, or a .csv.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Instead of --data: the node's settings; its store is read.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with small pictures of what was found.")
    ] = None,
    write_clean: Annotated[
        Path | None, typer.Option(help="Write a manifest without the films that should go.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for scripts.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="End with 1 when there is more than notes.")
    ] = False,
) -> None:
    """Look for what spoils a training set, before a network learns it.

    Films that no model should see, pictures that are there twice, labels that contradict each
    other, and sources or views that tell the label. The films themselves are never changed.
    """
    cases, manifest, refused = _cases(data, config)
    from trainer import audit as program

    found = program.inspect(cases, progress=_progress(quiet=as_json))
    if as_json:
        typer.echo(json.dumps({**found.to_json(), "refused_by_the_node": refused}, indent=2))
    else:
        _print(found)
        if refused:
            typer.echo(f"{refused} labelled films of the store are not for the model; left out")
    say: Callable[[str], None] = (lambda _: None) if as_json else typer.echo
    if html is not None:
        program.write_page(found, html, title=(data or Path("the node's store")).name)
        say(f"\n{html}: pictures of what was found; it shows patients' images, keep it here")
    if write_clean is not None:
        dropped = program.write_clean(found, write_clean, manifest=manifest)
        kept = len(found.cases) - len(found.dropped)
        say(f"\n{write_clean}: {kept} films; {dropped}: {len(found.dropped)} left out, and why")
    if strict and found.grave:
        raise typer.Exit(FOUND)


def _cases(location: Path | None, config: Path | None) -> tuple[tuple[Case, ...], Path | None, int]:
    """The films, the manifest that lists them, and how many more the node refused."""
    from trainer import data

    if (location is None) == (config is None):
        raise UsageError("give either --data DIR or --config FILE (the node's settings)")
    if location is not None:
        listed = location if location.is_file() else location / data.manifest.FILE_NAME
        cases = data.read_cases(location, require_files=False)
        return cases, listed if listed.is_file() else None, 0
    from dicomnode.config import load
    from trainer.data.store import stored_films

    films = stored_films(load(config).storage)
    if not films.cases:
        raise DataError(
            "the node's store holds no labelled film for the model; "
            "`dicomnode labels import` brings labels"
        )
    return films.cases, None, len(films.skipped)


def _progress(*, quiet: bool) -> Callable[[int, int], None] | None:
    """A bar on standard error, for people who look."""
    import sys

    if quiet or not sys.stderr.isatty():
        return None

    def tell(done: int, due: int) -> None:
        end = "\n" if done == due else ""
        sys.stderr.write(f"\r{done} of {due} films{end}")
        sys.stderr.flush()

    return tell


def _print(found: Audit) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    classes = ", ".join(
        f"{label}: {counts['films']} films, {counts['patients']} patients"
        for label, counts in found.classes.items()
    )
    console.print(Text(f"{len(found.cases)} films, {found.usable} usable ({classes})"))
    for confounding in (found.source, found.view):
        table = Table(box=box.SIMPLE, title=f"label by {confounding.by}", title_justify="left")
        table.add_column(confounding.by)
        for label in confounding.labels:
            table.add_column(Text(label), justify="right")
        for value, row in confounding.counts.items():
            table.add_row(Text(value or "not stated"), *(str(count) for count in row))
        console.print(table)
    colours = {"error": "red", "warning": "yellow", "note": "dim"}
    listed = Table.grid(padding=(0, 2))
    for finding in found.findings:
        about = f"{finding.kind.title}: {finding.sentence}"
        names = [film.name for film in finding.films[:EXAMPLES]]
        more = ", ..." if len(finding.films) > EXAMPLES else ""
        listed.add_row(
            Text(finding.kind.severity, style=colours[finding.kind.severity]),
            Text(f"{about} ({', '.join(names)}{more})" if names else about),
        )
    console.print(listed if found.findings else Text("nothing was found"))
    if found.dropped:
        console.print(Text(f"a cleaned manifest leaves out {len(found.dropped)} films"))
