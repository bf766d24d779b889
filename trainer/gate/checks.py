"""The single checks: each a sentence with its figures, passed, failed or flagged."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from trainer.gate.answers import Answers
from trainer.gate.paired import Difference, auc, difference
from trainer.gate.policy import Policy

Figures = dict[str, float | int | None]

_Z: Final = 1.959964
_LABELS_OF_A_SOURCE: Final = 5
"""Fewest films of each label for the AUC of one source to be judged."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at. `flagged` is for a human and does not decide."""

    name: str
    outcome: Literal["passed", "failed", "flagged"]
    sentence: str
    figures: Figures = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SourceRow:
    """One source, both versions. None: no such films, or no current version."""

    source: str
    positives: int
    negatives: int
    candidate_accuracy: float
    current_accuracy: float | None
    candidate_auc: float | None
    current_auc: float | None


def enough_patients(
    patients: Iterable[Hashable], truth: Iterable[Any], policy: Policy, where: str
) -> Check:
    """Whether anything can be judged at all, by films with a patient and a truth each."""
    films = list(zip(patients, truth, strict=True))
    found = (
        len({patient for patient, _ in films}),
        len({patient for patient, positive in films if positive}),
        len({patient for patient, positive in films if not positive}),
    )
    asked = (
        policy.minimum_patients,
        policy.minimum_positive_patients,
        policy.minimum_negative_patients,
    )
    short = [max(0, need - have) for have, need in zip(found, asked, strict=True)]
    counted = f"{found[0]} patients ({found[1]} with a positive, {found[2]} with a negative film)"
    figures: Figures = dict(
        zip(("patients", "positive_patients", "negative_patients"), found, strict=True)
    )
    if not any(short):
        sentence = f"{where} stands on {counted}"
        return Check(name="enough_patients", outcome="passed", sentence=sentence, figures=figures)
    missing = ", ".join(
        f"{count} more {kind}"
        for count, kind in zip(
            short, ("patients", "with a positive film", "with a negative film"), strict=True
        )
        if count
    )
    sentence = (
        f"cannot be judged: {where} stands on {counted}, the gate asks for {asked[0]} "
        f"({asked[1]} and {asked[2]}); held out must be {missing}"
    )
    return Check(name="enough_patients", outcome="failed", sentence=sentence, figures=figures)


def floors(answers: Answers, policy: Policy) -> list[Check]:
    """Sensitivity and specificity at the threshold, and AUC, of the candidate alone."""
    truth, called = answers.truth, answers.called
    area = auc(truth, answers.scores)
    reached = area is not None and area >= policy.auc_floor
    return [
        _share_floor("sensitivity", called[truth], policy.sensitivity_floor, "positive"),
        _share_floor("specificity", ~called[~truth], policy.specificity_floor, "negative"),
        Check(
            name="auc_floor",
            outcome="passed" if reached else "failed",
            sentence=f"AUC is {told(area)}, the floor is {policy.auc_floor:g}",
            figures={"value": area, "floor": policy.auc_floor},
        ),
    ]


def comparison(candidate: Answers, current: Answers, policy: Policy) -> list[Check]:
    """Not worse than the current version: over all films, and in no source."""
    return [_not_worse(candidate, current, policy), _no_collapse(candidate, current, policy)]


def source_rows(candidate: Answers, current: Answers | None) -> tuple[SourceRow, ...]:
    """One row per source, for people."""
    rows = []
    for number, source in enumerate(candidate.source_names):
        inside = candidate.strata == number
        truth = candidate.truth[inside]
        rows.append(
            SourceRow(
                source=source or "unknown",
                positives=int(truth.sum()),
                negatives=int((~truth).sum()),
                candidate_accuracy=_accuracy(candidate, inside),
                current_accuracy=None if current is None else _accuracy(current, inside),
                candidate_auc=auc(truth, candidate.scores[inside]),
                current_auc=None if current is None else auc(truth, current.scores[inside]),
            )
        )
    return tuple(rows)


def auc_difference(
    candidate: Answers,
    current: Answers,
    policy: Policy,
    *,
    strata: NDArray[np.intp] | None = None,
) -> Difference | None:
    """Of AUC, over all pairs or within `strata`; None when there are too few pairs."""
    return difference(
        candidate.truth,
        candidate.scores,
        current.scores,
        candidate.patients,
        strata=strata,
        resamples=policy.resamples,
        seed=policy.seed,
    )


# ------------------------------------------------------------------------- the comparison


def _not_worse(candidate: Answers, current: Answers, policy: Policy) -> Check:
    found = auc_difference(candidate, current, policy)
    if found is None:
        return Check(
            name="auc_not_worse",
            outcome="failed",
            sentence="cannot be judged: too few pairs of a positive and a negative film",
        )
    figures: Figures = _figures(found) | {"margin": policy.margin}
    sentence = (
        f"AUC {found.candidate:.3f} against {found.current:.3f}, difference "
        f"{found.value:+.3f} (95 % {found.low:+.3f} to {found.high:+.3f})"
    )
    if found.low >= -policy.margin:
        return Check(name="auc_not_worse", outcome="passed", sentence=sentence, figures=figures)
    sentence += f": a loss of {-found.low:.3f} cannot be excluded, the margin is {policy.margin:g}"
    return Check(name="auc_not_worse", outcome="failed", sentence=sentence, figures=figures)


def _no_collapse(candidate: Answers, current: Answers, policy: Policy) -> Check:
    fallen, judged = [], 0
    for row in source_rows(candidate, current):
        if row.positives + row.negatives < policy.source_minimum_films:
            continue
        judged += 1
        pairs: list[tuple[str, float | None, float | None]] = [
            ("accuracy", row.candidate_accuracy, row.current_accuracy)
        ]
        if min(row.positives, row.negatives) >= _LABELS_OF_A_SOURCE:
            pairs.append(("AUC", row.candidate_auc, row.current_auc))
        fallen += [
            f"{row.source}: {name} {ours:.3f} against {theirs:.3f} "
            f"({row.positives + row.negatives} films)"
            for name, ours, theirs in pairs
            if ours is not None and theirs is not None and ours < theirs - policy.source_drop
        ]
    figures: Figures = {"sources_judged": judged, "source_drop": policy.source_drop}
    if not fallen:
        sentence = (
            f"no source of {judged} with at least {policy.source_minimum_films} films fell by "
            f"more than {policy.source_drop:g}"
        )
        return Check(name="no_collapse", outcome="passed", sentence=sentence, figures=figures)
    sentence = f"fell by more than {policy.source_drop:g} at {'; '.join(fallen)}"
    return Check(name="no_collapse", outcome="failed", sentence=sentence, figures=figures)


# -------------------------------------------------------------------------------- figures


def _share_floor(name: str, right: NDArray[np.bool_], floor: float, kind: str) -> Check:
    """`right` tells of each film of one truth whether it was called so."""
    cases, share = len(right), float(right.mean())
    low = _wilson_low(share, cases)
    sentence = (
        f"{name} at the threshold is {share:.3f} (95 % from {low:.3f}, {cases} {kind} films), "
        f"the floor is {floor:g}"
    )
    return Check(
        name=f"{name}_floor",
        outcome="passed" if share >= floor else "failed",
        sentence=sentence,
        figures={"value": share, "low": low, "cases": cases, "floor": floor},
    )


def _wilson_low(share: float, cases: int) -> float:
    """Lower end of the 95 % score interval (Wilson 1927)."""
    centre = share + _Z**2 / (2 * cases)
    half = _Z * math.sqrt(share * (1 - share) / cases + (_Z / cases) ** 2 / 4)
    return max(0.0, (centre - half) / (1 + _Z**2 / cases))


def _accuracy(answers: Answers, inside: NDArray[np.bool_]) -> float:
    return float((answers.called[inside] == answers.truth[inside]).mean())


def _figures(found: Difference) -> Figures:
    return {
        "candidate": found.candidate,
        "current": found.current,
        "difference": found.value,
        "low": found.low,
        "high": found.high,
    }


def told(value: float | int | None) -> str:
    """A figure in words."""
    return "unknown" if value is None else f"{value:.3f}"
