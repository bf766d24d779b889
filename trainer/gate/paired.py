"""The difference of two models' AUC on the same films, resampled by patient.

AUC is the share of pairs of a positive and a negative film that are in order, ties counted
half (Mann and Whitney 1947). *Within sources* only pairs of films of one source count: a
model that merely knows which hospital a film is from is at 0.5 there. The interval is the
percentile interval of a bootstrap over patients (Efron 1979), both models on the same
resample, because films of one patient are not independent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Truth = NDArray[np.bool_]
Scores = NDArray[np.float64]
Weights = NDArray[np.float64]

_CELLS: Final = 2_000_000
"""Films x resamples that are in memory at a time."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Candidate against current, and the 95 % interval of candidate - current."""

    candidate: float
    current: float
    low: float
    high: float

    @property
    def value(self) -> float:
        return self.candidate - self.current


def auc(truth: Truth, scores: Scores, strata: NDArray[np.intp] | None = None) -> float | None:
    """AUC over all pairs, or over pairs within `strata` (a number per film); None without
    any pair."""
    if not len(truth):
        return None
    ordered, pairs = _pairs(truth, scores, np.ones((1, len(truth))), strata)
    return float(ordered[0] / pairs[0]) if pairs[0] else None


def difference(
    truth: Truth,
    candidate: Scores,
    current: Scores,
    patients: NDArray[np.intp],
    *,
    strata: NDArray[np.intp] | None = None,
    resamples: int,
    seed: int,
) -> Difference | None:
    """AUC of two models on the same films; `patients` and `strata` hold a number per film.

    None when there is no pair to compare, or hardly ever one in a resample.
    """
    values = auc(truth, candidate, strata), auc(truth, current, strata)
    if values[0] is None or values[1] is None:
        return None
    rng = np.random.default_rng(seed)
    number = int(patients.max()) + 1
    drawn: list[NDArray[np.float64]] = []
    step = max(1, _CELLS // max(1, len(truth)))
    for start in range(0, resamples, step):
        counts = rng.multinomial(number, np.full(number, 1 / number), min(step, resamples - start))
        weights = counts[:, patients].astype(np.float64)
        first, pairs = _pairs(truth, candidate, weights, strata)
        second, _ = _pairs(truth, current, weights, strata)
        told = pairs > 0
        drawn.append((first[told] - second[told]) / pairs[told])
    differences = np.concatenate(drawn)
    if len(differences) < resamples // 2:
        return None
    low, high = np.percentile(differences, [2.5, 97.5])
    return Difference(candidate=values[0], current=values[1], low=float(low), high=float(high))


def _pairs(
    truth: Truth, scores: Scores, weights: Weights, strata: NDArray[np.intp] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ordered pairs and all pairs, float64 [resamples], of films weighted [resamples, N]."""
    if strata is None:
        return _pairs_of_one(truth, scores, weights)
    ordered, pairs = np.zeros(len(weights)), np.zeros(len(weights))
    for stratum in np.unique(strata):
        inside = strata == stratum
        more, of = _pairs_of_one(truth[inside], scores[inside], weights[:, inside])
        ordered += more
        pairs += of
    return ordered, pairs


def _pairs_of_one(
    truth: Truth, scores: Scores, weights: Weights
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    starts = np.flatnonzero(np.concatenate(([True], ranked[1:] != ranked[:-1])))
    positive = np.add.reduceat(weights[:, order] * truth[order], starts, axis=1)
    negative = np.add.reduceat(weights[:, order] * ~truth[order], starts, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2
    ordered = (positive * below).sum(axis=1)
    return ordered, positive.sum(axis=1) * negative.sum(axis=1)
