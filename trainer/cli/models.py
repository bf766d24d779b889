"""`trainer models`: published versions, and the way back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trainer import registry
from trainer.errors import NothingToDo

app = typer.Typer(
    help="Look at published versions, and roll back.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Base = Annotated[Path, typer.Option("--out", "--base", help="The model directory.")]


@app.command("list")
def list_versions(base: Base) -> None:
    """Published and withdrawn versions, the newest last."""
    published, withdrawn = registry.versions(base), registry.withdrawn_versions(base)
    if not published and not withdrawn:
        raise NothingToDo(f"{base} holds no versions; `trainer fit --out {base}` publishes one")
    for version in sorted({*published, *withdrawn}):
        card = registry.read_card(base, version)
        state = "serving" if published and version == published[-1] else "published"
        state = state if version in published else "withdrawn"
        area = (card.metrics.get("auc") or {}).get("value")
        typer.echo(
            f"{version:>4}  {state:<9}  {card.network:<12}  {card.created_at}  "
            f"AUC {'-' if area is None else f'{area:.3f}'}  threshold {card.threshold.value:.3f}"
        )


@app.command()
def show(version: Annotated[int, typer.Argument()], base: Base) -> None:
    """The model card of a version."""
    typer.echo(registry.read_card(base, version).to_json())


@app.command()
def rollback(base: Base) -> None:
    """Withdraw the newest version; the one before it serves again."""
    withdrawn, serving = registry.rollback(base)
    typer.echo(f"version {withdrawn} is withdrawn, version {serving} serves")
