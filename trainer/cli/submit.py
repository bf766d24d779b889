"""`trainer submit`."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from trainer.cli.output import Format, teller


def submit(
    config: Annotated[Path, typer.Option(help="Where to run, and what: a TOML file.")],
    render: Annotated[
        bool, typer.Option("--render", help="Print the objects as YAML; needs no cluster.")
    ] = False,
    name: Annotated[
        str | None, typer.Option(help="Of the Job [default: one that no other run has]")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the objects in the cluster afterwards.")
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(help="Seconds to wait for the Job [default: its deadline]", min=1.0),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Run a training on a Kubernetes cluster: create the Job, follow it, clean up."""
    from trainer.submit import Options, generated_name, load
    from trainer.submit import render as rendered
    from trainer.submit import submit as run

    settings = load(config)
    if render:
        fixed = name or f"trainer-{settings.run.command}"
        typer.echo(rendered(settings, fixed).to_yaml(), nl=False)
        return
    signal.signal(signal.SIGTERM, _interrupted)  # a CronJob's pod is ended so
    told = teller(Format.JSON if as_json else Format.HUMAN)
    options = Options(keep=keep, timeout_seconds=timeout)
    run(settings, name or generated_name(settings.run), options, told if as_json else _plain(told))


def _interrupted(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt


def _plain(tell: Any) -> Any:
    """The chief's lines as they are; the rest as every command tells it."""

    def plain(event: str, facts: dict[str, Any]) -> None:
        if event == "log":
            typer.echo(facts["line"])
            return
        lines = facts.pop("last_lines", [])
        tell(event, facts)
        for line in lines:
            typer.echo(f"          | {line}")

    return plain
