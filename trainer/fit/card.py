"""What a version says of itself."""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from dicomnode.modelcard import Calibration, ModelCard, Threshold
from trainer import data, registry
from trainer.config import FINDINGS, FitConfig
from trainer.evaluate import Assessment
from trainer.networks import Network

LIBRARIES: Final = ("tensorflow", "keras", "numpy", "pillow", "pydicom", "dicomnode")


def model_card(
    config: FitConfig,
    network: Network,
    films: data.Films,
    parts: data.Split,
    assessment: Assessment,
    *,
    epochs: int,
    seconds: float,
) -> ModelCard:
    """The card of a fresh version; its number is written in when it is published."""
    temperature = assessment.temperature
    return ModelCard(
        model_name=config.model_name,
        model_version=1,
        network=config.network,
        classes=assessment.classes,
        positive_class=config.positive_class,
        finding=FINDINGS[config.finding],
        preprocess_profile=network.profile,
        threshold=Threshold(value=assessment.threshold, rule=assessment.threshold_rule),
        calibration=Calibration(
            method="none" if temperature == 1.0 else "temperature", temperature=temperature
        ),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        parent_version=max(registry.versions(config.out), default=None),
        data_manifest_sha256=films.manifest_sha256,
        seed=config.seed,
        training_seconds=round(seconds, 1),
        libraries=library_versions(),
        metrics=assessment.metrics | {"epochs": epochs, "films": counts(parts)},
        per_source=assessment.per_source,
        notes=" ".join(notes(config, films)),
    )


def counts(parts: data.Split) -> dict[str, int]:
    """Films of each part."""
    return {
        "training": len(parts.training),
        "validation": len(parts.validation),
        "test": len(parts.test),
    }


def notes(config: FitConfig, films: data.Films) -> list[str]:
    """What a reader of the figures has to know."""
    found = []
    if {case.source for case in films.cases} == {"phantoms"}:
        found.append(
            "Trained on computer-generated phantoms: it has learned nothing about disease."
        )
    if config.recipe == "thesis":
        found.append(
            "Recipe thesis: parted by film, so a patient may be in both parts; no validation "
            "part, so the curves are of the test part, the last epoch is kept and the threshold "
            "is 0.5."
        )
    if films.skipped:
        found.append(f"{len(films.skipped)} films could not be used.")
    return found


def library_versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write_training_manifest(folder: Path, films: data.Films, parts: data.Split) -> None:
    """Which films a version has seen, by content: no name, no patient."""
    path = folder / registry.TRAINING_MANIFEST_PATH
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(("sha256", "label", "part"))
        for part, indices in vars(parts).items():
            rows.writerows((films.digests[i], films.cases[i].label, part) for i in indices)


def spoken(figures: dict[str, Any]) -> dict[str, Any]:
    """The figures that a progress line tells."""
    names = ("accuracy", "sensitivity", "specificity", "auc", "auc_mixed_sources")
    return {name: figures[name]["value"] for name in names if name in figures}
