"""Candidate and current version on the same held-out patients, and the gate's decision.

What the current version learned from cannot judge it: patients with such a film are left
out of the comparison while enough others remain. Otherwise they stay in, which favours
the current version, and the decision says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicomnode.modelcard import ModelCard
from trainer import data, evaluate, gate, registry
from trainer.evaluate import served
from trainer.fit import Candidate

Progress = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The decision, against which version, and what else there is to say about it."""

    decision: gate.Promote | gate.Refuse
    current_version: int | None
    notes: tuple[str, ...]


def judge(candidate: Candidate, base: Path, policy: gate.Policy, progress: Progress) -> Judgement:
    """Ask the newest version of `base` about the candidate's held-out films, and decide.

    Raises `RegistryError`, `DataError`.
    """
    temperature = candidate.assessment.temperature
    ours = gate.Judged(
        predictions=candidate.test.scaled(temperature), threshold=candidate.assessment.threshold
    )
    version = max(registry.versions(base), default=None)
    if version is None:
        return Judgement(
            decision=gate.decide(ours, None, policy),
            current_version=None,
            notes=("there is no current version: the floors decide alone",),
        )
    folder, card = base / str(version), registry.read_card(base, version)
    other = _incomparable(candidate.card, card, version)
    if other is not None:
        return Judgement(decision=other, current_version=version, notes=())
    told = served.predict_version(folder, _held_out(candidate, card))
    progress("compared", {"version": version, "films": len(told.names)})
    return _decided(candidate, ours, told, folder, card, version, policy)


def _decided(
    candidate: Candidate,
    ours: gate.Judged,
    told: evaluate.Predictions,
    folder: Path,
    card: ModelCard,
    version: int,
    policy: gate.Policy,
) -> Judgement:
    known = _patients_learned_from(candidate, folder)
    if known is None:
        note = f"version {version} does not say which films it was made from; it may know some"
        theirs = gate.Judged(predictions=told, threshold=card.threshold.value)
        return Judgement(
            decision=gate.decide(ours, theirs, policy), current_version=version, notes=(note,)
        )
    unseen = told.chosen([i for i, patient in enumerate(told.patients) if patient not in known])
    held_out = f"{len(set(told.patients) & known)} of {len(set(told.patients))} held-out patients"
    if gate.shortage(unseen.patients, unseen.truth.tolist(), policy) is None:
        told, note = unseen, f"left out of the comparison: {held_out}, known to version {version}"
    else:
        note = (
            f"version {version} learned from films of {held_out}; too few others are left, so "
            "they stay in the comparison, which favours it"
        )
    theirs = gate.Judged(predictions=told, threshold=card.threshold.value)
    return Judgement(
        decision=gate.decide(ours, theirs, policy),
        current_version=version,
        notes=(note,) if known & set(candidate.test.patients) else (),
    )


def _incomparable(ours: ModelCard, theirs: ModelCard, version: int) -> gate.Refuse | None:
    if ours.positive_class == theirs.positive_class and set(ours.classes) == set(theirs.classes):
        return None
    sentence = (
        f"cannot be compared: the candidate tells {', '.join(ours.classes)} apart (positive: "
        f"{ours.positive_class}), version {version} {', '.join(theirs.classes)} (positive: "
        f"{theirs.positive_class})"
    )
    check = gate.Check(name="comparable", outcome="failed", sentence=sentence)
    return gate.Refuse(checks=(check,), sources=())


def _held_out(candidate: Candidate, card: ModelCard) -> data.Films:
    """The held-out films as the current version wants to see them."""
    films, test = candidate.films, candidate.split.test
    if card.preprocess_profile == candidate.card.preprocess_profile:
        return replace(
            films,
            cases=tuple(films.cases[index] for index in test),
            tensors=_grey(films.tensors, test),
            digests=tuple(films.digests[index] for index in test),
            skipped=(),
        )
    return data.load([films.cases[index] for index in test], card.preprocess_profile)


def _grey(tensors: NDArray[np.uint8], chosen: NDArray[np.intp]) -> NDArray[np.uint8]:
    """The three channels are one: a copy of one of them is enough."""
    plane = tensors[..., :1][chosen]
    return np.broadcast_to(plane, (*plane.shape[:-1], tensors.shape[-1]))


def _patients_learned_from(candidate: Candidate, folder: Path) -> set[str] | None:
    """Patients of whom any film, in whatever part now, taught the current version."""
    used = registry.used_films(folder)
    if used is None:
        return None
    films = candidate.films
    return {
        case.patient
        for case, digest in zip(films.cases, films.digests, strict=True)
        if digest in used and used[digest].learned_from
    }
