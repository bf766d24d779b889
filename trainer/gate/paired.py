"""The difference of two models' AUC on the same films, resampled by patient.

AUC is the share of pairs of a positive and a negative film that are in order, ties counted
half (Mann and Whitney 1947). *Within sources* only pairs of films of one source count: a
model that merely knows which hospital a film is from is at 0.5 there. The interval is the
percentile interval of a bootstrap over patients (Efron 1979), both models on the same
resample, because films of one patient are not independent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.evaluate import ranking
from trainer.evaluate.predictions import Scores, Truth


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
    return ranking.once(ranking.area(truth, scores, strata), len(truth))


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
    areas = [ranking.area(truth, scores, strata) for scores in (candidate, current)]
    first, second = ranking.resampled(areas, patients, resamples, seed)
    differences = (first - second)[~np.isnan(first)]
    if len(differences) < resamples // 2:
        return None
    low, high = np.percentile(differences, [2.5, 97.5])
    return Difference(candidate=values[0], current=values[1], low=float(low), high=float(high))
