"""What a retraining would work with: `trainer retrain --dry-run`. Writes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer import data, gate, registry
from trainer.retrain import snapshot
from trainer.retrain.settings import RetrainSettings


@dataclass(frozen=True, kw_only=True)
class Preview:
    """Counts; patients are counted and not named."""

    current_version: int | None
    films: int
    patients: int
    skipped: dict[str, int]
    """Labelled films that are not for the model, by reason."""
    changed: int | None
    """Films that are new, gone or relabelled since the current version; None: not known."""
    parts: dict[str, dict[str, int]]
    """Films and patients by part, and films of each class in it."""
    sources: dict[str, dict[str, int]]
    """Films of each class by source."""
    missing: tuple[str, ...]
    """What stands in the way, a sentence each."""

    def to_json(self) -> dict[str, Any]:
        return {"outcome": "dry_run"} | asdict(self)


def preview(settings: RetrainSettings) -> Preview:
    """Raises `DataError` when there is nothing that could be trained on."""
    found = snapshot.look(settings)
    cases = found.cases
    data.require_classes(cases, positive_class=settings.fit.positive_class)
    parts = data.held_out(
        cases,
        test_fraction=settings.fit.test_fraction,
        validation_fraction=settings.fit.validation_fraction,
        seed=settings.fit.seed,
    )
    base = settings.fit.out
    changed = snapshot.changes(snapshot.labels_of(cases), base)
    return Preview(
        current_version=max(registry.versions(base), default=None),
        films=len(cases),
        patients=len({case.patient for case in cases}),
        skipped=dict(Counter(film.reason for film in found.skipped)),
        changed=changed,
        parts={
            "training": _counted(cases, parts.training),
            "validation": _counted(cases, parts.validation),
            "held out": _counted(cases, parts.test),
        },
        sources=_by_source(cases),
        missing=tuple(_missing(settings, cases, parts.test, changed)),
    )


def _counted(cases: Sequence[data.Case], chosen: NDArray[np.intp]) -> dict[str, int]:
    inside = [cases[index] for index in chosen]
    labels = Counter(case.label for case in inside)
    return {
        "films": len(inside),
        "patients": len({case.patient for case in inside}),
        **{label: labels[label] for label in sorted({case.label for case in cases})},
    }


def _by_source(cases: Sequence[data.Case]) -> dict[str, dict[str, int]]:
    labels = sorted({case.label for case in cases})
    counts = Counter((case.source or "unknown", case.label) for case in cases)
    sources = sorted({source for source, _ in counts})
    return {source: {label: counts[source, label] for label in labels} for source in sources}


def _missing(
    settings: RetrainSettings,
    cases: Sequence[data.Case],
    test: NDArray[np.intp],
    changed: int | None,
) -> list[str]:
    positive = settings.fit.positive_class
    sentences = _incomparable(settings, {case.label for case in cases})
    if changed is not None and changed < settings.run.minimum_new_films:
        sentences.append(
            f"{changed} films changed since the current version, "
            f"{settings.run.minimum_new_films} are asked for: the run would end with 3"
        )
    short = gate.shortage(
        [cases[index].patient for index in test],
        [cases[index].label == positive for index in test],
        settings.policy,
    )
    return [*sentences, *([short] if short else [])]


def _incomparable(settings: RetrainSettings, classes: set[str]) -> list[str]:
    """Whether the current version tells other things apart: the gate would refuse."""
    base = settings.fit.out
    newest = max(registry.versions(base), default=None)
    if newest is None:
        return []
    card = registry.read_card(base, newest)
    if (set(card.classes), card.positive_class) == (classes, settings.fit.positive_class):
        return []
    return [
        f"version {newest} tells {', '.join(card.classes)} apart (positive: "
        f"{card.positive_class}), the films {', '.join(sorted(classes))} (positive: "
        f"{settings.fit.positive_class}): the candidate would be refused"
    ]
