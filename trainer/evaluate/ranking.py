"""How well scores put positive films above negative ones, resampled by patient.

ROC AUC is the share of pairs of a positive and a negative film that are in order, ties
counted half (Mann and Whitney 1947); average precision is the area under the precision-
recall steps (as scikit-learn defines it). *Within sources* only pairs of films of one
source count. Intervals are 95 % percentile intervals of a bootstrap over patients (Efron
1979), because films of one patient are not independent. Pure numpy, one pass of sorted
weights for all resamples at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trainer.evaluate.predictions import Scores, Truth
from trainer.evaluate.proportions import Figure, figure

Weights = NDArray[np.float64]
"""float64 [R, N]: how often each film is in each resample."""
Values = NDArray[np.float64]
"""float64 [R]: a statistic of each resample, NaN where it is not defined."""
Statistic = Callable[[Weights], Values]

_CELLS: Final = 500_000
"""Films x resamples that are in memory at a time: about 30 MB with what is derived."""
_Z: Final = 1.959963984540054


def auc(truth: Truth, scores: Scores) -> float | None:
    """Area under the ROC curve; None without a film of either label."""
    return once(area(truth, scores), len(truth))


def average_precision(truth: Truth, scores: Scores) -> float | None:
    """Area under the precision-recall curve; None without a positive film."""
    return once(precision_area(truth, scores), len(truth))


def once(statistic: Statistic, films: int) -> float | None:
    """A statistic of the films as they are; None where it is not defined."""
    value = float(statistic(np.ones((1, films)))[0])
    return None if math.isnan(value) else value


def resampled(
    statistics: Sequence[Statistic], patients: NDArray[np.intp], resamples: int, seed: int
) -> list[Values]:
    """Each statistic on the same `resamples` draws of patients.

    `patients` is a number from 0 per film. Memory does not grow with `resamples`.
    """
    rng = np.random.default_rng(seed)
    number = int(patients.max(initial=-1)) + 1
    step = max(1, _CELLS // max(1, len(patients)))
    drawn: list[list[Values]] = [[] for _ in statistics]
    for start in range(0, resamples if number else 0, step):
        count = min(step, resamples - start)
        picked = rng.multinomial(number, np.full(number, 1 / number), count)
        weights = picked[:, patients].astype(np.float64)
        for values, statistic in zip(drawn, statistics, strict=True):
            values.append(statistic(weights))
    return [np.concatenate(values) if values else np.empty(0) for values in drawn]


def interval(values: Values) -> tuple[float | None, float | None]:
    """The middle 95 %; None when most resamples do not define the statistic, or when all
    of them give the same value: then the films are too few or too easy to tell."""
    defined = values[~np.isnan(values)]
    if len(defined) < max(2, len(values) / 2) or np.ptp(defined) < 1e-12:
        return None, None
    low, high = np.percentile(defined, [2.5, 97.5])
    return float(low), float(high)


def bootstrap_figure(value: float | None, values: Values, cases: int) -> Figure:
    """A figure with its bootstrap interval (widened to hold the value)."""
    low, high = interval(values)
    if value is None or low is None or high is None:
        return figure(value, None, None, cases)
    return figure(value, min(low, value), max(high, value), cases)


def area_figure(value: float | None, values: Values, cases: int, groups: tuple[int, int]) -> Figure:
    """As `bootstrap_figure`; at 0 or 1, where no resample can differ, a score interval.

    `groups` are the patients with a positive and with a negative film.
    """
    told = bootstrap_figure(value, values, cases)
    if value is not None and told["low"] is None and min(groups) > 0:
        return figure(value, *score_interval(value, *groups), cases)
    return told


def score_interval(value: float, positives: int, negatives: int) -> tuple[float, float]:
    """Where an AUC may lie that shows as `value` (Newcombe 2006, method 5).

    Solves (value - t)^2 = z^2 Var(t) with the variance of Hanley and McNeil (1982) at t, so
    that a perfect order of few films is no proof of a perfect model.
    """
    star = (positives + negatives) / 2 - 1

    def excess(t: float) -> float:
        inner = 1 + star * ((1 - t) / (2 - t) + t / (1 + t))
        return (value - t) ** 2 - _Z**2 * t * (1 - t) * inner / (positives * negatives)

    def edge(outer: float) -> float:
        inside, outside = value, outer
        if excess(outside) <= 0:
            return outside
        for _ in range(60):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if excess(middle) <= 0 else (inside, middle)
        return inside

    tiny = 1e-9
    low = 0.0 if value <= tiny else edge(0.0)
    high = 1.0 if value >= 1 - tiny else edge(1.0)
    return low, high


# ------------------------------------------------------------------------------ statistics


def area(truth: Truth, scores: Scores, strata: NDArray[np.intp] | None = None) -> Statistic:
    """AUC over all pairs, or over the pairs within each of `strata` (a number per film;
    films of a negative number are left out)."""
    if strata is None:
        groups = [np.arange(len(truth))]
    else:
        groups = [np.flatnonzero(strata == number) for number in np.unique(strata) if number >= 0]
    ranked = [(films, _Ranked.of(truth[films], scores[films])) for films in groups if len(films)]

    def statistic(weights: Weights) -> Values:
        ordered, pairs = np.zeros(len(weights)), np.zeros(len(weights))
        for films, ranks in ranked:
            positive, negative = ranks.sums(weights[:, films])
            below = np.cumsum(negative, axis=1) - negative / 2
            ordered += np.einsum("rk,rk->r", positive, below)
            pairs += positive.sum(axis=1) * negative.sum(axis=1)
        return _divided(ordered, pairs)

    return statistic


def precision_area(truth: Truth, scores: Scores) -> Statistic:
    """Average precision."""
    ranks = _Ranked.of(truth, scores)

    def statistic(weights: Weights) -> Values:
        if not len(truth):
            return np.full(len(weights), np.nan)
        positive, negative = (values[:, ::-1] for values in ranks.sums(weights))
        caught = np.cumsum(positive, axis=1)
        called = caught + np.cumsum(negative, axis=1)
        precision = np.divide(caught, called, out=np.zeros_like(caught), where=called > 0)
        return _divided(np.einsum("rk,rk->r", positive, precision), caught[:, -1])

    return statistic


def mean_of(values: NDArray[np.float64]) -> Statistic:
    """The weighted mean of a value per film, e.g. squared errors."""

    def statistic(weights: Weights) -> Values:
        return _divided(weights @ values, weights.sum(axis=1))

    return statistic


@dataclass(frozen=True, kw_only=True)
class _Ranked:
    """Films in ascending order of their scores, equal scores together."""

    order: NDArray[np.intp]
    starts: NDArray[np.intp]
    truth: Truth

    @classmethod
    def of(cls, truth: Truth, scores: Scores) -> _Ranked:
        order = np.argsort(scores, kind="stable")
        ranked = scores[order]
        new = np.ones(len(order), dtype=np.bool_)
        new[1:] = ranked[1:] != ranked[:-1]
        return cls(order=order, starts=np.flatnonzero(new), truth=truth[order])

    def sums(self, weights: Weights) -> tuple[Weights, Weights]:
        """Positive and negative weight at each distinct score, float64 [R, K]."""
        sorted_weights = weights[:, self.order]
        positive = sorted_weights * self.truth
        negative = sorted_weights - positive
        if len(self.starts) == len(self.order):
            return positive, negative
        return (
            np.add.reduceat(positive, self.starts, axis=1),
            np.add.reduceat(negative, self.starts, axis=1),
        )


def _divided(parts: Values, wholes: Values) -> Values:
    return np.divide(parts, wholes, out=np.full(len(parts), np.nan), where=wholes > 0)


# ---------------------------------------------------------------------------------- curves


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Points from the strictest to the laxest threshold; empty without films of a label."""

    false_positive_rate: tuple[float, ...]
    true_positive_rate: tuple[float, ...]
    """The ROC curve with `false_positive_rate`; both start at 0 and end at 1."""
    recall: tuple[float, ...]
    precision: tuple[float, ...]
    """The precision-recall curve, one point per distinct score."""

    def to_json(self) -> dict[str, Any]:
        return {name: [round(v, 4) for v in values] for name, values in vars(self).items()}


def curves(truth: Truth, scores: Scores) -> Curves:
    """ROC and precision-recall."""
    if not truth.any() or truth.all():
        return Curves(false_positive_rate=(), true_positive_rate=(), recall=(), precision=())
    ranks = _Ranked.of(truth, scores)
    positive, negative = (values[0, ::-1] for values in ranks.sums(np.ones((1, len(truth)))))
    caught, alarms = np.cumsum(positive), np.cumsum(negative)
    return Curves(
        false_positive_rate=(0.0, *(alarms / alarms[-1]).tolist()),
        true_positive_rate=(0.0, *(caught / caught[-1]).tolist()),
        recall=tuple((caught / caught[-1]).tolist()),
        precision=tuple((caught / (caught + alarms)).tolist()),
    )
