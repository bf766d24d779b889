"""`trainer fit`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from trainer.cli.models import Base
from trainer.cli.output import Format, teller
from trainer.config import FINDINGS, NETWORKS, FitConfig


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

    run(config, teller(progress))
