"""`trainer models`: published versions, what distinguishes them, and the way back."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from dicomnode.modelcard import ModelCard
from trainer import registry
from trainer.errors import NothingToDo, RegistryError

app = typer.Typer(
    help="Look at published versions, compare them, promote and roll back.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_COLUMN = 30

Base = Annotated[Path, typer.Option("--out", "--base", help="The model directory.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON value, for scripts.")]


@app.command("list")
def list_versions(base: Base, as_json: AsJson = False) -> None:
    """Published and withdrawn versions, the newest last."""
    published, withdrawn = registry.versions(base), registry.withdrawn_versions(base)
    if not published and not withdrawn:
        raise NothingToDo(f"{base} holds no versions; `trainer fit --out {base}` publishes one")
    rows = []
    for version in sorted({*published, *withdrawn}):
        state = "serving" if published and version == published[-1] else "published"
        state = state if version in published else "withdrawn"
        rows.append((state, version, _card_or_problem(base, version)))
    if as_json:
        _print([_entry(state, version, card) for state, version, card in rows])
        return
    for state, version, card in rows:
        if isinstance(card, RegistryError):
            typer.echo(f"{version:>4}  {state:<9}  damaged: {card}")
            continue
        parent = "-" if card.parent_version is None else str(card.parent_version)
        typer.echo(
            f"{version:>4}  {state:<9}  from {parent:<4}  {card.network:<14}  {card.created_at}  "
            f"AUC {_figure(card.metrics.get('auc'))}  threshold {card.threshold.value:.3f}"
        )


@app.command()
def show(version: Annotated[int, typer.Argument()], base: Base, as_json: AsJson = False) -> None:
    """The model card of a version, which is JSON with and without --json."""
    del as_json
    typer.echo(registry.read_card(base, version).to_json())


@app.command()
def diff(
    first: Annotated[int, typer.Argument()],
    second: Annotated[int, typer.Argument()],
    base: Base,
    as_json: AsJson = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Also what both versions have in common.")
    ] = False,
) -> None:
    """Two versions side by side: network, films, threshold, calibration, figures, libraries."""
    compared = registry.compare(base, first, second)
    if as_json:
        _print(dataclasses.asdict(compared))
        return
    typer.echo(f"{'':<34}  {f'version {first}':<30}  version {second}")
    section = ""
    for row in compared.rows:
        left, right = _side(row.first), _side(row.second)
        if not (everything or _worth_telling(row, left, right)):
            continue
        if row.section != section:
            section = row.section
            typer.echo(section)
        # what is too long for its column leaves the other side to the next line
        between = "  " if len(left) <= _COLUMN else f"\n{'':<{_COLUMN + 38}}"
        typer.echo(f"  {row.name:<32}  {left:<{_COLUMN}}{between}{right}")
    typer.echo(_films(compared))


@app.command()
def promote(
    version: Annotated[int, typer.Argument()],
    base: Base,
    as_json: AsJson = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
) -> None:
    """Make a version, published or withdrawn, the one that serves.

    Servers load the highest number, so the versions above it are withdrawn (not deleted).
    """
    change = registry.plan_promotion(base, version) if dry_run else registry.promote(base, version)
    if as_json:
        _print(dataclasses.asdict(change) | {"done": not dry_run})
        return
    verb = "would be" if dry_run else "is"
    if change.returns:
        typer.echo(f"version {version} {verb} published again")
    for number in change.withdraws:
        typer.echo(f"version {number} {verb} withdrawn")
    typer.echo(f"version {version} {'would serve' if dry_run else 'serves'}")
    if change.serving is not None:
        typer.echo(f"the way back: trainer models promote {change.serving} --base {base}")


@app.command()
def publish(
    folder: Annotated[Path, typer.Argument(help="A complete version, e.g. a refused candidate.")],
    base: Base,
    as_json: AsJson = False,
) -> None:
    """Publish a folder by hand as the next version; it is copied, nothing is judged."""
    number = registry.publish_copy(folder, base)
    if as_json:
        _print({"version": number, "path": str(base / str(number))})
        return
    typer.echo(f"version {number} serves")


@app.command()
def rollback(base: Base, as_json: AsJson = False) -> None:
    """Withdraw the newest version; the one before it serves again."""
    withdrawn, serving = registry.rollback(base)
    if as_json:
        _print({"withdrawn": withdrawn, "serving": serving})
        return
    typer.echo(f"version {withdrawn} is withdrawn, version {serving} serves")


def _card_or_problem(base: Path, version: int) -> ModelCard | RegistryError:
    """One damaged version must not hide the others from whoever comes to put it right."""
    try:
        return registry.read_card(base, version)
    except RegistryError as error:
        return error


def _entry(state: str, version: int, card: ModelCard | RegistryError) -> dict[str, Any]:
    if isinstance(card, RegistryError):
        return {"version": version, "state": state, "problem": str(card)}
    return {
        "version": version,
        "state": state,
        "parent_version": card.parent_version,
        "network": card.network,
        "created_at": card.created_at,
        "device_uid": card.device_uid,
        "threshold": card.threshold.value,
        "data_manifest_sha256": card.data_manifest_sha256,
        "auc": card.metrics.get("auc"),
        "sensitivity": card.metrics.get("sensitivity"),
        "specificity": card.metrics.get("specificity"),
    }


def _worth_telling(row: registry.Row, left: str, right: str) -> bool:
    """Figures always, unless neither version has them; other facts when they differ."""
    told = row.section in ("metrics", "threshold") and {left, right} != {"-"}
    return told or row.differs


def _films(compared: registry.Comparison) -> str:
    if compared.films is None:
        return "films: a version does not say which films it was made from"
    changes = ", ".join(f"{count} {name}" for name, count in compared.films.items())
    return f"films from {compared.first} to {compared.second}: {changes}"


def _side(value: Any) -> str:
    if isinstance(value, dict) and "value" in value:
        figure = _figure(value)
        return figure if figure == "-" else f"{figure} (n={value.get('cases', '?')})"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_side(part)}" for name, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else str(value)


def _figure(figure: Any) -> str:
    """`0.912 (0.85-0.96)`, or a dash for what was not measured."""
    if not isinstance(figure, dict) or figure.get("value") is None:
        return "-"
    told = f"{figure['value']:.3f}"
    if figure.get("low") is None or figure.get("high") is None:
        return told
    return f"{told} ({figure['low']:.3f}-{figure['high']:.3f})"


def _print(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2))
