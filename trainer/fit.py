"""One training run, from the folder to the published version."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dicomnode.modelcard import ModelCard, Threshold
from dicomnode.testing.phantoms import chest_phantom
from trainer import data, evaluate, features, networks, registry, train
from trainer.config import FINDINGS, FitConfig
from trainer.errors import DataError

Progress = Callable[[str, dict[str, Any]], None]
"""Called with the name of an event and its facts."""

_LIBRARIES: Final = ("tensorflow", "keras", "numpy", "pillow", "pydicom", "dicomnode")


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """What a run published."""

    version: int
    path: Path
    card: ModelCard


def fit(config: FitConfig, progress: Progress) -> FitResult:
    """Train, choose the threshold, evaluate on held-out patients, export, publish.

    Raises the errors of `trainer.errors`; nothing is published then.
    """
    started = time.monotonic()
    films, parts, classes = _films(config, progress)
    labels = np.array([classes.index(case.label) for case in films.cases], dtype=np.int64)
    network = networks.build(
        config.network,
        weights=config.weights,
        classes=len(classes),
        seed=config.seed,
        alpha=config.alpha,
    )
    probabilities, epochs = _trained(config, network, films, parts, labels, progress=progress)
    positive = classes.index(config.positive_class)
    truth, scores = labels == positive, probabilities[:, positive]
    threshold = evaluate.choose_threshold(truth[parts.validation], scores[parts.validation])
    test = parts.test
    figures = evaluate.metrics(truth[test], scores[test], threshold)
    progress("evaluated", _spoken(figures) | {"threshold": round(threshold, 4)})

    card = ModelCard(
        model_name=config.model_name,
        model_version=1,
        network=config.network,
        classes=classes,
        positive_class=config.positive_class,
        finding=FINDINGS[config.finding],
        preprocess_profile=networks.profile_of(config.network),
        threshold=Threshold(value=threshold, rule=_rule(films, parts)),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        parent_version=max(registry.versions(config.out), default=None),
        data_manifest_sha256=films.manifest_sha256,
        seed=config.seed,
        training_seconds=round(time.monotonic() - started, 1),
        libraries=_library_versions(),
        metrics=figures | {"epochs": len(epochs), "films": _counts(parts)},
        per_source=evaluate.by_source(
            [films.cases[index].source for index in test], truth[test], scores[test], threshold
        ),
        notes=_notes(films),
    )
    return _publish(config, network, card, progress)


def _films(config: FitConfig, progress: Progress) -> tuple[data.Films, data.Split, tuple[str, ...]]:
    cases = data.read_cases(config.data)
    classes = tuple(sorted({case.label for case in cases}))
    if config.positive_class not in classes:
        raise DataError(
            f"{config.data} has the classes {', '.join(classes)}; none is the positive class "
            f"{config.positive_class!r}; pass --positive-class"
        )
    parts = data.split(
        cases,
        test_fraction=config.test_fraction,
        validation_fraction=config.validation_fraction,
        seed=config.seed,
    )
    films = data.load(cases, networks.profile_of(config.network))
    progress("films", {"classes": len(classes), **_counts(parts)})
    return films, parts, classes


def _trained(
    config: FitConfig,
    network: networks.Network,
    films: data.Films,
    parts: data.Split,
    labels: NDArray[np.int64],
    *,
    progress: Progress,
) -> tuple[NDArray[np.float64], list[train.Epoch]]:
    """Train what is trainable; probabilities [N, classes] of all films, and the epochs."""
    import keras  # noqa: PLC0415 - tensorflow takes seconds to import

    inputs: NDArray[np.uint8] | NDArray[np.float32] = films.tensors
    if network.frozen:
        inputs = features.compute(network.backbone, films.tensors)
        progress("features", {"films": len(inputs), "shape": list(inputs.shape[1:])})
        model = network.head
    else:
        image = network.backbone.input
        model = keras.Model(image, network.head(network.backbone(image)))

    def part(indices: NDArray[np.intp]) -> train.Part:
        return train.Part(inputs=inputs[indices], labels=labels[indices])

    def on_epoch(epoch: train.Epoch) -> None:
        progress(
            "epoch",
            {
                "epoch": f"{epoch.number}/{config.epochs}",
                "loss": round(epoch.loss, 4),
                "validation_loss": round(epoch.validation_loss, 4),
                "validation_accuracy": round(epoch.validation_accuracy, 4),
            },
        )

    epochs = train.train(
        model,
        part(parts.training),
        part(parts.validation),
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate or (1e-3 if network.frozen else 3e-3),
        seed=config.seed,
        decay="thesis" if network.frozen else "cosine",
        augment=not network.frozen,
        on_epoch=on_epoch,
    )
    return train.predict(model, inputs), epochs


def _publish(
    config: FitConfig, network: networks.Network, card: ModelCard, progress: Progress
) -> FitResult:
    from trainer.export import export  # noqa: PLC0415

    with registry.staging(config.out) as folder:
        export(network, folder, card, _warmup_film(networks.profile_of(config.network)))
        number = registry.publish(folder, config.out)
    path = config.out / str(number)
    progress("published", {"version": number, "path": str(path)})
    return FitResult(version=number, path=path, card=registry.read_card(config.out, number))


def _warmup_film(profile: str) -> NDArray[np.uint8]:
    """A phantom, so that warming up runs on something like a film and on nobody's."""
    grey = np.round(chest_phantom(0, True, 256, 256) * 255).astype(np.uint8)
    return data.prepared_tensor(grey, profile)[np.newaxis]


def _counts(parts: data.Split) -> dict[str, int]:
    return {
        "training": len(parts.training),
        "validation": len(parts.validation),
        "test": len(parts.test),
    }


def _spoken(figures: dict[str, Any]) -> dict[str, Any]:
    names = ("accuracy", "sensitivity", "specificity", "auc")
    return {name: figures[name]["value"] for name in names}


def _rule(films: data.Films, parts: data.Split) -> str:
    patients = len({films.cases[index].patient for index in parts.validation})
    return f"{evaluate.THRESHOLD_RULE} ({len(parts.validation)} films, {patients} patients)"


def _notes(films: data.Films) -> str:
    if {case.source for case in films.cases} == {"phantoms"}:
        return "Trained on computer-generated phantoms: it has learned nothing about disease."
    return ""


def _library_versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
