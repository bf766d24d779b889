"""`trainer fit`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from trainer.cli.output import Format, teller
from trainer.config import FINDINGS, NETWORKS, RECIPES, FitConfig, fit_config, load_fit

_Text = str | None
_Whole = int | None
_Number = float | None


def _option(help_text: str, **options: Any) -> Any:
    return typer.Option(help=help_text, show_default=False, **options)


def fit(
    config: Annotated[Path | None, _option("A card (TOML); options are stronger.")] = None,
    data: Annotated[Path | None, _option("A folder per class, or with manifest.csv.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "--base", help="The model directory.")
    ] = None,
    recipe: Annotated[_Text, _option(f"One of {', '.join(RECIPES)}. [default: default]")] = None,
    network: Annotated[_Text, _option(f"One of {', '.join(NETWORKS)}. [default: vgg16]")] = None,
    weights: Annotated[_Text, _option("random, imagenet, or a Keras .h5 file.")] = None,
    alpha: Annotated[
        _Number, _option("Width of a MobileNet [default: from the file, or 1].")
    ] = None,
    head: Annotated[_Text, _option("thesis or pooled [default: the network's own].")] = None,
    fine_tune: Annotated[_Whole, _option("Train the last N layers too [default: 0].")] = None,
    augment: Annotated[
        bool | None, _option("Mirror and move films [default: for tiny only].")
    ] = None,
    dtype: Annotated[_Text, _option("float32 or bfloat16, of the frozen part.")] = None,
    epochs: Annotated[_Whole, _option("[default: 25]")] = None,
    batch_size: Annotated[_Whole, _option("Over all workers [default: 16].")] = None,
    learning_rate: Annotated[_Number, _option("[default: 0.001; 0.003 for tiny]")] = None,
    seed: Annotated[_Whole, _option("Of split, weights, order and dropout [default: 42].")] = None,
    positive_class: Annotated[_Text, _option("[default: positive]")] = None,
    finding: Annotated[_Text, _option(f"One of {', '.join(FINDINGS)}.")] = None,
    model_name: Annotated[_Text, _option("[default: the name of the model directory]")] = None,
    test_fraction: Annotated[_Number, _option("Of the patients [default: 0.2].")] = None,
    validation_fraction: Annotated[_Number, _option("Of the others [default: 0.2].")] = None,
    minimum_sensitivity: Annotated[
        _Number, _option("That the threshold has to reach [default: the largest Youden index].")
    ] = None,
    prevalence: Annotated[_Number, _option("For the predictive values.")] = None,
    strict: Annotated[bool | None, _option("Stop at a film that cannot be used.")] = None,
    strategy: Annotated[_Text, _option("local, direct or kubernetes [default: local].")] = None,
    work: Annotated[
        Path | None, _option("Features and checkpoints, shared by all workers [OUT/.work].")
    ] = None,
    report: Annotated[Path | None, _option("Where reports go [default: OUT-reports].")] = None,
    patience_seconds: Annotated[_Number, _option("For an idle worker [default: 1800].")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes on this machine.")] = 1,
    restarts: Annotated[
        int, typer.Option(min=0, help="How often all workers may start again.")
    ] = 3,
    progress: Annotated[Format, typer.Option(help="For people, or JSON lines.")] = Format.HUMAN,
) -> None:
    """Train on a folder, evaluate on held-out patients, publish the next version."""
    told = {
        "data": data,
        "out": out,
        "recipe": recipe,
        "network": network,
        "weights": weights,
        "alpha": alpha,
        "head": head,
        "fine_tune": fine_tune,
        "augment": augment,
        "dtype": dtype,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
        "positive_class": positive_class,
        "finding": finding,
        "model_name": model_name,
        "test_fraction": test_fraction,
        "validation_fraction": validation_fraction,
        "minimum_sensitivity": minimum_sensitivity,
        "prevalence": prevalence,
        "strict": strict,
        "strategy": strategy,
        "work": work,
        "report": report,
        "patience_seconds": patience_seconds,
    }
    settings = fit_config(told) if config is None else load_fit(config, told)
    if workers > 1:
        _launch(settings, workers, restarts, progress)
        return
    _train(settings, progress)


def _train(settings: FitConfig, progress: Format) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from trainer.fit import fit as run
    from trainer.launch import end_with_launcher

    end_with_launcher()
    run(settings, teller(progress))


def _launch(settings: FitConfig, workers: int, restarts: int, progress: Format) -> None:
    from trainer.launch import launch

    launch(
        settings,
        workers=workers,
        restarts=restarts,
        options=("--progress", progress.value),
        tell=teller(progress),
    )
