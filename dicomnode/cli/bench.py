"""`dicomnode bench`: throughput and latency against the number of model servers."""

from __future__ import annotations

import json as json_module
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer
from rich.table import Table

from dicomnode.cli.exits import DONE
from dicomnode.cli.tables import print_table
from dicomnode.errors import ConfigError

if TYPE_CHECKING:
    from dicomnode.bench.measured import Measured

_MOST_BACKENDS = 64


class Measure(Protocol):
    """One run, on the servers at these targets."""

    def __call__(self, targets: Sequence[str], *, studies: int, concurrency: int) -> Measured: ...


def bench(
    studies: Annotated[int, typer.Option(min=1, max=1_000_000, help="Per run.")] = 400,
    concurrency: Annotated[int, typer.Option(min=1, max=1000, help="Callers at a time.")] = 32,
    backends: Annotated[str, typer.Option(help="Numbers of model servers, a run each.")] = "1,2,4",
    service_milliseconds: Annotated[
        float, typer.Option(min=0.0, max=60_000.0, help="Simulated time per image.")
    ] = 50.0,
    end_to_end: Annotated[
        bool, typer.Option("--end-to-end", help="A whole node: C-STORE to report.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for table and plots.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Measure on simulated model servers of equal, fixed service time."""
    counts = _counts(backends)
    from dicomnode.bench import table
    from dicomnode.bench.servers import simulated_servers
    from dicomnode.logs import configure

    configure(level="ERROR")
    title = table.described(
        studies=studies,
        concurrency=concurrency,
        service_milliseconds=service_milliseconds,
        whole=end_to_end,
    )
    measure = _measure(end_to_end)
    runs = []
    for count in counts:
        with simulated_servers(count, service_seconds=service_milliseconds / 1000) as targets:
            runs.append(measure(targets, studies=studies, concurrency=concurrency))
        if not json:
            typer.echo(f"{count} backends: {runs[-1].per_second:.1f} studies/s", err=True)
    if json:
        typer.echo(json_module.dumps(table.facts(title, runs), indent=2))
    else:
        typer.echo(title)
        shown = Table(box=None)
        for column in table.HEADER:
            shown.add_column(column, justify="right")
        for row in table.rows(runs):
            shown.add_row(*row)
        print_table(shown)
    if out is not None:
        table.write(out, title, runs)
        _plot(out, title, runs)
    return DONE


def _measure(end_to_end: bool) -> Measure:
    if end_to_end:
        from dicomnode.bench.endtoend import measure_node

        return measure_node
    from dicomnode.bench.load import measure

    return measure


def _counts(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and 1 <= int(part) <= _MOST_BACKENDS for part in parts):
        raise ConfigError([f"--backends must be numbers from 1 to {_MOST_BACKENDS}, got {text!r}"])
    return [int(part) for part in parts]


def _plot(out: Path, title: str, runs: Sequence[Measured]) -> None:
    from dicomnode.bench.plots import write_plots

    try:
        write_plots(out, title, runs)
    except ImportError:
        typer.echo(
            f"{out}: bench.md, bench.json; no plots, matplotlib is not installed "
            "(pip install 'dicomnode[model]')",
            err=True,
        )
    else:
        typer.echo(f"{out}: bench.md, bench.json, throughput.png, latency.png", err=True)
