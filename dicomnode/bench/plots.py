"""Throughput and latency as pictures. Needs matplotlib (the `model` extra)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dicomnode.bench.measured import Measured

_BLUE, _GREY = "#1f5fa8", "#8a8a8a"
_SHADES = {0.5: "#9ec5e8", 0.95: "#4c8fcc", 0.99: "#12406f"}


def write_plots(out: Path, title: str, runs: Sequence[Measured]) -> None:
    """`throughput.png` and `latency.png` in `out`. Raises ImportError without matplotlib."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - where pictures are wanted alone
    from matplotlib.ticker import ScalarFormatter  # noqa: PLC0415

    ordered = sorted(runs, key=lambda run: run.backends)
    backends = [run.backends for run in ordered]
    note = title.split("; ", 1)[1]

    figure, axes = _new(Figure, note, backends)
    one = next((run for run in ordered if run.backends == 1), None)
    if one is not None:
        ideal = [count * one.per_second for count in backends]
        axes.plot(backends, ideal, "--", color=_GREY, label="k times one")
    axes.plot(backends, [run.per_second for run in ordered], "o-", color=_BLUE, label="measured")
    axes.set_ylabel("studies per second")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    figure.savefig(out / "throughput.png", dpi=150)

    figure, axes = _new(Figure, note, backends)
    for part, colour in _SHADES.items():
        milliseconds = [run.quantile(part) * 1000 for run in ordered]
        axes.plot(backends, milliseconds, "o-", color=colour, label=f"p{part * 100:g}")
    axes.set_ylabel("latency, ms (logarithmic)")
    axes.set_yscale("log")  # a caller that waits its turn waits a hundred times the median
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.legend(frameon=False)
    figure.savefig(out / "latency.png", dpi=150)


def _new(figure_class: Any, note: str, backends: Sequence[int]) -> tuple[Any, Any]:
    figure = figure_class(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel("model servers (simulated)")
    axes.set_xticks(backends)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(note.replace("; ", "\n"), fontsize=7, color="#444444", loc="left")
    return figure, axes
