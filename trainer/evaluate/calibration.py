"""Whether a probability of 0.8 is right eight times in ten, and the temperature for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from trainer.evaluate.predictions import Predictions, Scores, Truth, numbered
from trainer.evaluate.proportions import Figure, figure, proportion
from trainer.evaluate.ranking import bootstrap_figure, mean_of, once

BINS: Final = 10
BINNING: Final = f"{BINS} bins of equal width"
FEWEST_FILMS: Final = 20
FEWEST_OF_A_CLASS: Final = 5
COLDEST, HOTTEST = 0.05, 20.0
"""Bounds of the temperature."""
_DRAWS: Final = 200


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """What the logits are divided by, and what is to be said about it."""

    value: float
    note: str = ""


def fit_temperature(validation: Predictions) -> Temperature:
    """The temperature with the lowest cross-entropy (Guo et al. 2017), within bounds.

    Cross-entropy is convex in 1/T, so its slope is bisected. When every film has the
    highest probability at its own class, cross-entropy falls without end as T does; then the
    targets are softened by the rule of succession (Platt 1999): n films without an error
    support a probability of (n + 1)/(n + 2) and no more.
    """
    targets = validation.targets
    counts = np.bincount(targets, minlength=len(validation.classes))
    present = counts[counts > 0]
    if len(targets) < FEWEST_FILMS or len(present) < 2 or present.min() < FEWEST_OF_A_CLASS:
        note = (
            f"not calibrated: the validation part has {len(targets)} films, "
            f"{min(counts, default=0)} of the rarest class; {FEWEST_FILMS} and "
            f"{FEWEST_OF_A_CLASS} are needed"
        )
        return Temperature(value=1.0, note=note)
    logits = validation.logits
    if np.ptp(logits, axis=1).max() < 1e-9:
        return Temperature(value=1.0, note="not calibrated: every film got the same answer")
    own = logits[np.arange(len(targets)), targets]
    others = logits.copy()
    others[np.arange(len(targets)), targets] = -np.inf
    separated = bool((own > others.max(axis=1)).all())
    wanted = np.eye(len(counts))[targets]
    if separated:
        right = ((counts + 1) / (counts + 2))[targets][:, np.newaxis]
        wanted = wanted * right + (1 - wanted) * (1 - right) / (len(counts) - 1)
    value = _bisected(logits, wanted)
    if separated:
        note = (
            f"the validation part ({len(targets)} films) holds no error: the temperature says "
            "how sure so few films allow to be"
        )
    elif value in (COLDEST, HOTTEST):
        note = f"the temperature is at its bound {value:g}: look at the validation part"
    else:
        note = ""
    return Temperature(value=round(value, 4), note=note)


def _bisected(logits: NDArray[np.float64], wanted: NDArray[np.float64]) -> float:
    """Where the slope of cross-entropy over 1/T is zero."""
    aim = (wanted * logits).sum(axis=1).mean()

    def slope(inverse: float) -> float:
        powers = logits * inverse
        powers = np.exp(powers - powers.max(axis=1, keepdims=True))
        expected = (powers * logits).sum(axis=1) / powers.sum(axis=1)
        return float(expected.mean() - aim)

    low, high = 1 / HOTTEST, 1 / COLDEST
    if slope(low) >= 0:
        return HOTTEST
    if slope(high) <= 0:
        return COLDEST
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 2 / (low + high)


def cross_entropy(predictions: Predictions) -> float:
    """Mean negative logarithm of the probability of the own class."""
    if not predictions.names:
        return 0.0
    own = predictions.probabilities[np.arange(len(predictions.names)), predictions.targets]
    return float(-np.log(np.maximum(own, 1e-30)).mean())


def reliability(truth: Truth, scores: Scores) -> list[dict[str, Any]]:
    """One row per bin that holds films: bounds, films, mean score, share that is positive."""
    place = _bins(scores)
    rows = []
    for number in range(BINS):
        inside = place == number
        films = int(inside.sum())
        if films:
            rows.append(
                {
                    "from": number / BINS,
                    "to": (number + 1) / BINS,
                    "films": films,
                    "mean_score": round(float(scores[inside].mean()), 4),
                    "share": proportion(int(truth[inside].sum()), films),
                }
            )
    return rows


def expected_calibration_error(truth: Truth, scores: Scores) -> float | None:
    """Mean distance of mean score and share of positives over the bins, weighted by films
    (Naeini, Cooper and Hauskrecht 2015)."""
    if not len(truth):
        return None
    return float(_gaps(truth[np.newaxis], scores)[0])


def calibration_figures(
    truth: Truth, scores: Scores, squares: NDArray[np.float64], seed: int
) -> dict[str, Figure]:
    """`ece` and `brier`; `squares` are the resampled means of the squared errors.

    ECE is above 0 even for a model that is calibrated perfectly, the more so the fewer the
    films, and resampling adds to that; so instead of an interval it comes with `by_chance`:
    what perfectly calibrated scores would show on as many films (mean, and what 95 % stay
    below).
    """
    films = len(truth)
    told = figure(expected_calibration_error(truth, scores), None, None, films)
    by_chance: dict[str, float | None] = {"mean": None, "high": None}
    if films:
        rng = np.random.default_rng(seed)
        drawn = _gaps(rng.random((_DRAWS, films)) < scores, scores)
        by_chance = {
            "mean": round(float(drawn.mean()), 4),
            "high": round(float(np.percentile(drawn, 95)), 4),
        }
    brier = once(mean_of((scores - truth) ** 2), films)
    return {
        "ece": told | {"binning": BINNING, "by_chance": by_chance},
        "brier": bootstrap_figure(brier, squares, films),
    }


def _bins(scores: Scores) -> NDArray[np.intp]:
    return np.minimum((scores * BINS).astype(np.intp), BINS - 1)


def _gaps(truths: NDArray[np.bool_], scores: Scores) -> NDArray[np.float64]:
    """The error of each row of truths [D, N]."""
    place = numbered([str(number) for number in _bins(scores)])
    member = np.zeros((len(scores), int(place.max()) + 1))
    member[np.arange(len(scores)), place] = 1.0
    gaps = (truths.astype(np.float64) - scores) @ member
    return np.abs(gaps).sum(axis=1) / len(scores)
