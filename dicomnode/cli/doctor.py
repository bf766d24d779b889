"""`dicomnode doctor`: what is missing or wrong."""

from __future__ import annotations

import json as json_module
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from dicomnode.cli.exits import DONE, FAILED
from dicomnode.cli.serve import ConfigOption
from dicomnode.config import load
from dicomnode.doctor.findings import Finding, Verdict, fail, ok
from dicomnode.errors import ConfigError

_MARKS = {Verdict.OK: "ok    ", Verdict.WARN: "WARN  ", Verdict.FAIL: "FAIL  "}
_COLOURS = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "red"}


def doctor(
    config: ConfigOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> int:
    """Examine settings, store, database, models, peers and machine; ends with 1 on a failure."""
    findings = []
    for finding in _findings(config):
        findings.append(finding)
        if not json:
            _tell(finding)
    counts = {verdict: sum(f.verdict is verdict for f in findings) for verdict in Verdict}
    if json:
        facts = {
            "ok": not counts[Verdict.FAIL],
            "findings": [vars(f) | {"verdict": f.verdict.value} for f in findings],
        }
        typer.echo(json_module.dumps(facts, indent=2))
    else:
        typer.echo(", ".join(f"{count} {verdict.value}" for verdict, count in counts.items()))
    return FAILED if counts[Verdict.FAIL] else DONE


def _findings(config: Path | None) -> Iterator[Finding]:
    try:
        settings = load(config)
    except ConfigError as error:
        for problem in error.problems:
            yield fail(
                "config",
                problem,
                expected="settings as docs/configuration.md has them",
                next_step="correct it; the other checks need the settings",
            )
        return
    yield ok("config", str(config) if config is not None else "no file: the defaults")
    from dicomnode.doctor.examination import examine
    from dicomnode.logs import configure

    configure(level="CRITICAL")  # what goes wrong is told as a finding
    yield from examine(settings)


def _tell(finding: Finding) -> None:
    mark = typer.style(_MARKS[finding.verdict], fg=_COLOURS[finding.verdict])
    typer.echo(f"{mark}{finding.check}: {finding.found}")
    if finding.verdict is not Verdict.OK:
        typer.echo(f"      expected: {finding.expected}")
        typer.echo(f"      next:     {finding.next_step}")
