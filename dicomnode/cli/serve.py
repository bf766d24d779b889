"""`dicomnode serve` and `dicomnode check-config`."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from dicomnode.config import Settings, load
from dicomnode.logs import configure

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="The settings file (TOML).", envvar="DICOMNODE_CONFIG"),
]


def serve(config: ConfigOption = None) -> int:
    """Run the node until SIGTERM or SIGINT."""
    settings = load(config)
    configure_logs(settings)
    from dicomnode.daemon import run

    return run(settings)


def check_config(
    config: ConfigOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print the settings as JSON.")] = False,
) -> None:
    """Check the settings; print what is in force, secrets masked."""
    settings = load(config)
    tree = settings.model_dump(mode="json")
    if json:
        typer.echo(json_module.dumps(tree, indent=2))
        return
    for line in _lines("", tree):
        typer.echo(line)
    typer.echo("ok")


def configure_logs(settings: Settings) -> None:
    """Log as the settings say."""
    wanted = {"auto": None, "json": True, "console": False}[settings.log.format]
    configure(level=settings.log.level, json=wanted)


def _lines(prefix: str, tree: object) -> list[str]:
    if isinstance(tree, dict):
        return [
            line
            for key, value in tree.items()
            for line in _lines(f"{prefix}.{key}" if prefix else key, value)
        ]
    if isinstance(tree, list) and tree and isinstance(tree[0], dict):
        return [
            line for place, item in enumerate(tree) for line in _lines(f"{prefix}[{place}]", item)
        ]
    return [f"{prefix} = {json_module.dumps(tree)}"]
