"""What was measured, as text and as figures."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dicomnode import __version__
from dicomnode.bench.measured import QUANTILES, Measured, speed_up

HEADER = (
    "backends",
    "studies",
    "seconds",
    "studies/s",
    "of k times one",
    *(f"p{part * 100:g} ms" for part in QUANTILES),
    "max ms",
)


def rows(runs: Sequence[Measured]) -> list[tuple[str, ...]]:
    """One per run, in the order of `HEADER`."""
    return [
        (
            str(run.backends),
            str(run.studies),
            f"{run.seconds:.2f}",
            f"{run.per_second:.1f}",
            "-" if (ratio := speed_up(runs, run)) is None else f"{ratio:.3f}",
            *(f"{run.quantile(part) * 1000:.0f}" for part in QUANTILES),
            f"{run.latencies[-1] * 1000:.0f}",
        )
        for run in runs
    ]


def described(*, studies: int, concurrency: int, service_milliseconds: float, whole: bool) -> str:
    way = "C-STORE to report in the PACS" if whole else "serving client"
    return (
        f"{way}; SIMULATED model servers, {service_milliseconds:g} ms per image and one image at a "
        f"time each; {studies} studies, {concurrency} callers without a pause; dicomnode "
        f"{__version__}, {platform.machine()}, {os.cpu_count()} processors"
    )


def markdown(title: str, runs: Sequence[Measured]) -> str:
    lines = [title, "", _line(HEADER), _line(["---:"] * len(HEADER))]
    return "\n".join([*lines, *map(_line, rows(runs))]) + "\n"


def facts(title: str, runs: Sequence[Measured]) -> dict[str, Any]:
    return {
        "title": title,
        "simulated": True,
        "runs": [
            {
                "backends": run.backends,
                "studies": run.studies,
                "seconds": round(run.seconds, 4),
                "per_second": round(run.per_second, 3),
                "of_k_times_one": None if (r := speed_up(runs, run)) is None else round(r, 4),
                "latency_seconds": {
                    f"p{part * 100:g}": round(run.quantile(part), 5) for part in QUANTILES
                }
                | {"max": round(run.latencies[-1], 5)},
                "shares": [round(share, 4) for share in run.shares],
            }
            for run in runs
        ],
    }


def write(out: Path, title: str, runs: Sequence[Measured]) -> None:
    """`bench.md` and `bench.json` in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "bench.md").write_text(markdown(title, runs), encoding="utf-8")
    (out / "bench.json").write_text(json.dumps(facts(title, runs), indent=2) + "\n")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
