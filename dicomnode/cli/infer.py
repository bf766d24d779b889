"""`dicomnode infer`: file in, report out, nothing stored."""

from __future__ import annotations

import json as json_module
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dicomnode import __version__
from dicomnode.cli.exits import DONE, FAILED
from dicomnode.cli.serve import ConfigOption
from dicomnode.config import Settings, load
from dicomnode.errors import BackendUnavailable, PermanentError
from dicomnode.logs import configure

if TYPE_CHECKING:
    from dicomnode.pipeline import Analyst
    from dicomnode.ports import ModelCards

_START_SECONDS = 90.0
"""How long the embedded model server may take to load tensorflow and the model."""


def infer(
    paths: Annotated[list[Path], typer.Argument(help="DICOM files.", exists=True)],
    config: ConfigOption = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per file.")] = False,
) -> int:
    """Judge files one by one and print their reports. Nothing is stored or sent."""
    configure(level="ERROR")
    settings = load(config)
    failed = 0
    files = [file for path in paths for file in _files(path)]
    with _analyst(settings) as (analyst, cards):
        for path in files:
            try:
                report = _report(path, analyst, cards, settings)
            except PermanentError as error:
                failed += 1
                report = {"error": error.code, "detail": str(error)}
            _print({"file": str(path), **report}, as_json=json)
    return FAILED if failed else DONE


def _files(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


@contextmanager
def _analyst(settings: Settings) -> Iterator[tuple[Analyst, ModelCards]]:
    from dicomnode import daemon
    from dicomnode.metrics import Metrics
    from dicomnode.pipeline import Analyst

    metrics = Metrics()
    server = daemon.build_model_server(settings)
    preparer = daemon.build_preparer(settings)
    predictor, cards = daemon.build_model_client(settings, metrics)
    try:
        cards.newest()
        if server is not None:
            server.start()
            _await(predictor.ready, settings)
        yield (
            Analyst(preparer=preparer, predictor=predictor, cards=cards, metrics=metrics),
            cards,
        )
    finally:
        predictor.close()
        preparer.close()
        if server is not None:
            server.stop()


def _await(ready: Any, settings: Settings) -> None:
    until = time.monotonic() + _START_SECONDS
    while not ready():
        if time.monotonic() > until:
            raise BackendUnavailable(
                f"the embedded model server did not serve {settings.serving.model_name!r} "
                f"within {_START_SECONDS:.0f} s; run `dicomnode model-server` by hand to see why"
            )
        time.sleep(0.2)


def _report(path: Path, analyst: Analyst, cards: ModelCards, settings: Settings) -> dict[str, Any]:
    from dicomnode import sr
    from dicomnode.daemon import new_uid, utc_now
    from dicomnode.findings import Evaluated
    from dicomnode.storage import read_header

    header = read_header(path)
    outcome = analyst.judge(path).outcome
    versions = [outcome.model_version] if isinstance(outcome, Evaluated) else []
    content = sr.ReportContent(
        headers=(header,),
        outcomes=(outcome,),
        cards={version: cards.get(version) for version in versions},
        model_name=settings.serving.model_name,
        sop_instance_uid=new_uid(),
        series_instance_uid=new_uid(),
        content_time=utc_now(),
        predecessor=None,
        software_version=__version__,
        revision=1,
    )
    return sr.report_json(content)


def _print(report: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json_module.dumps(report))
        return
    typer.echo(report["file"])
    if "error" in report:
        typer.echo(f"  not judged: {report['detail']}")
        return
    from dicomnode import sr

    typer.echo(sr.report_text(report))
