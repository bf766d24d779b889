"""The steps of a training run, in their order."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicomnode.imaging.profiles import profile_named
from dicomnode.modelcard import ModelCard
from dicomnode.testing.phantoms import chest_phantom
from trainer import data, evaluate, networks, registry, train
from trainer.cluster import Cluster, ClusterSpec, join
from trainer.config import FitConfig
from trainer.errors import TrainerError, UsageError
from trainer.fit import card as cards
from trainer.fit.learning import identity, learn
from trainer.fit.progress import Meter, Progress
from trainer.fit.storage import require_writable, space_required


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A trained network with its figures, not yet published."""

    folder: Path | None
    """The complete version, staged beside the published ones; the chief's only."""
    card: ModelCard
    assessment: evaluate.Assessment
    validation: evaluate.Predictions
    """Uncalibrated, as `test`; empty under the recipe `thesis`."""
    test: evaluate.Predictions
    films: data.Films
    split: data.Split
    history: tuple[train.Epoch, ...]


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """What a run published."""

    version: int
    path: Path
    card: ModelCard
    report: Path | None = None


def fit(config: FitConfig, progress: Progress) -> FitResult | None:
    """Train, choose the threshold, evaluate on held-out patients, export, publish, report.

    None on the workers that are not the chief. Raises the errors of `trainer.errors`; nothing
    is published then.
    """
    require_writable(config.report_folder)
    with trained(config, progress) as candidate:
        if candidate.folder is None:
            return None
        with space_required(config.out):
            number = registry.publish(candidate.folder, config.out)
        path = config.out / str(number)
        card = registry.read_card(config.out, number)
        report = _report(config, candidate, card)
        progress("published", {"version": number, "path": str(path), "report": str(report)})
        return FitResult(version=number, path=path, card=card, report=report)


@contextmanager
def trained(
    config: FitConfig,
    progress: Progress,
    *,
    cases: Sequence[data.Case] | None = None,
    split: data.Split | None = None,
) -> Iterator[Candidate]:
    """A run up to the staged version, which goes at the end unless it was published.

    `cases` are read from `config.data` unless given, and parted as the recipe says unless
    `split` (indices into `cases`) does. All workers of a run enter and leave together. Raises
    the errors of `trainer.errors`.
    """
    started = time.monotonic()
    spec = ClusterSpec.from_environment(config.strategy, os.environ)
    if spec.workers > 1 and config.network == "tiny":
        raise UsageError(
            "--network tiny learns batch statistics, which several workers would not share; "
            "train it with --strategy local, or choose another network"
        )
    tell = progress if spec.is_chief else _silent
    require_writable(config.work_folder, *([config.out] if spec.is_chief else []))
    config.work_folder.mkdir(parents=True, exist_ok=True)
    with (
        space_required(config.out, config.work_folder),
        join(spec, patience=config.patience_seconds) as cluster,
    ):
        films, parts = _films(config, cases, split, tell)
        classes = tuple(sorted({case.label for case in films.cases}))
        labels = np.array([classes.index(case.label) for case in films.cases], dtype=np.int64)
        network = _network(config, cluster, classes)
        tell("network", _described(network))
        checkpoint = _checkpoint(config, network, films, parts, tell)
        learned = learn(
            config,
            network,
            films,
            parts,
            labels,
            cluster=cluster,
            checkpoint=checkpoint,
            progress=tell,
        )

        def predictions(
            part: NDArray[np.intp], probabilities: NDArray[np.float64]
        ) -> evaluate.Predictions:
            return evaluate.Predictions.of(
                [films.cases[index] for index in part],
                probabilities,
                classes=classes,
                positive_class=config.positive_class,
            )

        validation = predictions(parts.validation, learned.validation)
        test = predictions(parts.test, learned.test)
        assessment = _assessed(config, validation, test, films, parts)
        tell("evaluated", _told(assessment))
        card = cards.model_card(
            config,
            network,
            films,
            parts,
            assessment,
            epochs=len(learned.history),
            seconds=time.monotonic() - started,
        )
        with _staged(config, cluster, network, card, films, parts) as folder:
            yield Candidate(
                folder=folder,
                card=card,
                assessment=assessment,
                validation=validation,
                test=test,
                films=films,
                split=parts,
                history=learned.history,
            )
        if cluster.is_chief:
            checkpoint.remove()


def _films(
    config: FitConfig,
    cases: Sequence[data.Case] | None,
    split: data.Split | None,
    progress: Progress,
) -> tuple[data.Films, data.Split]:
    cases = data.read_cases(config.data) if cases is None else cases
    data.require_classes(cases, positive_class=config.positive_class)
    if split is None:
        thesis = config.recipe == "thesis"
        split = data.split(
            cases,
            test_fraction=config.test_fraction,
            validation_fraction=0.0 if thesis else config.validation_fraction,
            seed=config.seed,
            by="image" if thesis else "patient",
        )
    films = data.load(
        cases,
        networks.profile_of(config.network),
        strict=config.strict,
        scratch=config.work_folder,
        progress=Meter(progress, "films"),
    )
    for film in films.skipped:
        progress("skipped", asdict(film))
    parts = data.drop_skipped(split, cases, films)
    classes = len({case.label for case in films.cases})
    told = {"classes": classes, **cards.counts(parts), "skipped": len(films.skipped)}
    progress("films", told)
    return films, parts


def _network(config: FitConfig, cluster: Cluster, classes: tuple[str, ...]) -> networks.Network:
    with cluster.exchange("the building of the network"), cluster.scope():
        return networks.build(
            config.network,
            weights=config.weights,
            classes=len(classes),
            seed=config.seed,
            alpha=config.alpha,
            fine_tune=config.fine_tune,
            head=config.head,
        )


def _described(network: networks.Network) -> dict[str, Any]:
    trained = sum(int(np.prod(v.shape)) for v in network.trainable.trainable_variables)
    fixed = 0 if network.base is None else network.base.count_params()
    return {"name": network.name, "trained_weights": trained, "frozen_weights": fixed}


def _checkpoint(
    config: FitConfig,
    network: networks.Network,
    films: data.Films,
    parts: data.Split,
    progress: Progress,
) -> train.Checkpoint:
    checkpoint = train.Checkpoint(
        folder=config.work_folder / "checkpoints",
        identity=identity(config, network, films, parts),
    )
    others = len(checkpoint.others())
    if others and not checkpoint.path.exists():
        progress(
            "checkpoints",
            {"ignored": others, "why": "of another configuration or other films"},
        )
    return checkpoint


def _assessed(
    config: FitConfig,
    validation: evaluate.Predictions,
    test: evaluate.Predictions,
    films: data.Films,
    parts: data.Split,
) -> evaluate.Assessment:
    training = evaluate.source_counts(
        [films.cases[index] for index in parts.training], config.positive_class
    )
    if config.recipe == "thesis":
        return evaluate.judge(
            test,
            threshold=0.5,
            threshold_rule="fixed at 0.5 (recipe thesis)",
            prevalence=config.prevalence,
            seed=config.seed,
            training=training,
        )
    return evaluate.assess(
        validation,
        test,
        prevalence=config.prevalence,
        seed=config.seed,
        rule=evaluate.Rule(minimum_sensitivity=config.minimum_sensitivity),
        training=training,
    )


@contextmanager
def _staged(
    config: FitConfig,
    cluster: Cluster,
    network: networks.Network,
    card: ModelCard,
    films: data.Films,
    parts: data.Split,
) -> Iterator[Path | None]:
    """The complete version in a hidden folder; None on the workers that are not the chief."""
    if not cluster.is_chief:
        yield None
        return
    from trainer.export import export  # noqa: PLC0415

    with registry.staging(config.out) as folder:
        warmup = _warmup_film(network.profile)
        export(network, folder, card, warmup, temperature=card.calibration.temperature)
        cards.write_training_manifest(folder, films, parts)
        yield folder


def _report(config: FitConfig, candidate: Candidate, card: ModelCard) -> Path:
    folder = config.report_folder / str(card.model_version)
    history = [asdict(epoch) for epoch in candidate.history]
    try:
        evaluate.write_tensorboard(folder, history, candidate.assessment)
        return evaluate.write_report(
            folder,
            title=f"{card.model_name} version {card.model_version}",
            card=card,
            assessment=candidate.assessment,
            history=history,
            skipped=candidate.films.skipped,
            notes=cards.notes(config, candidate.films),
        )
    except TrainerError as error:
        raise type(error)(
            f"version {card.model_version} is published in {config.out} and serves, but {error}; "
            "`trainer evaluate --part test --report DIR` writes its report"
        ) from error


def _warmup_film(profile_name: str) -> NDArray[np.uint8]:
    """A phantom, so that warming up runs on something like a film and on nobody's."""
    profile = profile_named(profile_name)
    phantom = chest_phantom(0, True, profile.height, profile.width)
    grey = np.round(phantom * 255).astype(np.uint8)
    return data.prepared_tensor(grey, profile_name)[np.newaxis]


def _told(assessment: evaluate.Assessment) -> dict[str, Any]:
    return cards.spoken(assessment.metrics) | {"threshold": round(assessment.threshold, 4)}


def _silent(_event: str, _facts: dict[str, Any]) -> None: ...
