"""The `trainer` command: parses, calls, prints, and maps errors to exit codes.

0 done, 1 failed, 2 wrong usage, 3 nothing to do. Progress goes to standard output, for
people or as one JSON object a line; errors are one line on standard error, a traceback
only with `--debug`.
"""

from __future__ import annotations

import enum
import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from dicomnode.errors import DicomnodeError
from trainer import registry
from trainer.config import FINDINGS, NETWORKS, FitConfig
from trainer.errors import NothingToDo

DONE, FAILED = 0, 1

app = typer.Typer(
    name="trainer",
    help="Train and publish models for a dicomnode. Investigational, not for diagnostic use.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
models = typer.Typer(
    help="Look at published versions, and roll back.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(models, name="models")

Base = Annotated[Path, typer.Option("--out", "--base", help="The model directory.")]


class Format(enum.Enum):
    """How progress is told."""

    HUMAN = "human"
    JSON = "json"


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show a traceback when something fails.")
    ] = False,
) -> None:
    """Options of every command."""
    del debug


@app.command()
def fit(
    data: Annotated[Path, typer.Option(help="A folder per class, or a folder with manifest.csv.")],
    out: Base,
    network: Annotated[str, typer.Option(help=f"One of {', '.join(NETWORKS)}.")] = "tiny",
    weights: Annotated[str, typer.Option(help="random, imagenet, or a Keras .h5 file.")] = "random",
    alpha: Annotated[
        float | None, typer.Option(help="Width of a MobileNet [default: from the file, or 1].")
    ] = None,
    epochs: Annotated[int, typer.Option()] = 25,
    batch_size: Annotated[int, typer.Option()] = 16,
    learning_rate: Annotated[
        float | None, typer.Option(help="[default: 0.001 on frozen features, 0.003 for tiny]")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the split, the weights and the order.")] = 42,
    positive_class: Annotated[str, typer.Option(metavar="NAME")] = "positive",
    finding: Annotated[str, typer.Option(help=f"One of {', '.join(FINDINGS)}.")] = "covid19",
    model_name: Annotated[
        str | None, typer.Option(help="[default: the name of the model directory]")
    ] = None,
    progress: Annotated[Format, typer.Option(help="For people, or JSON lines.")] = Format.HUMAN,
) -> None:
    """Train on a folder, evaluate on held-out patients, publish the next version."""
    config = FitConfig(
        data=data,
        out=out,
        network=network,
        weights=weights,
        alpha=alpha,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        positive_class=positive_class,
        finding=finding,
        model_name=model_name or out.resolve().name,
    )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from trainer.fit import fit as run

    run(config, _teller(progress))


@models.command("list")
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


@models.command()
def show(version: Annotated[int, typer.Argument()], base: Base) -> None:
    """The model card of a version."""
    typer.echo(registry.read_card(base, version).to_json())


@models.command()
def rollback(base: Base) -> None:
    """Withdraw the newest version; the one before it serves again."""
    withdrawn, serving = registry.rollback(base)
    typer.echo(f"version {withdrawn} is withdrawn, version {serving} serves")


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit with its code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    raise SystemExit(_run(arguments))


def _run(arguments: list[str]) -> int:
    try:
        # standalone mode prints usage errors itself: their classes are private to typer
        app(args=arguments, prog_name="trainer")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else FAILED
    except DicomnodeError as error:
        if "--debug" in arguments:
            raise
        typer.echo(f"{error.code}: {error}", err=True)
        return getattr(error, "exit_code", FAILED)
    return DONE


def _teller(progress: Format) -> Any:
    started = time.monotonic()

    def tell(event: str, facts: dict[str, Any]) -> None:
        if progress is Format.JSON:
            line = json.dumps({"event": event, **facts})
        else:
            told = "  ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items())
            line = f"{time.monotonic() - started:6.1f} s  {event:<10} {told}"
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    return tell
