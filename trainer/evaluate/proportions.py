"""Shares of films and what follows from them, with 95 % intervals.

A figure is ``{"value", "low", "high", "cases"}``, rounded to four places; None is what
cannot be told. Films are counted as if each were of another patient: with several films of
a patient the interval is somewhat too narrow. The figures of `ranking` are not.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from trainer.evaluate.predictions import Scores, Truth

Figure = dict[str, Any]

_Z: Final = 1.959963984540054
PREVALENCES: Final = (0.01, 0.05, 0.1, 0.2, 0.5)
"""For the table of predictive values: from screening to a chest clinic in a wave."""


def figure(value: float | None, low: float | None, high: float | None, cases: int) -> Figure:
    """Rounded, in the form of a model card."""

    def short(number: float | None) -> float | None:
        return None if number is None or math.isnan(number) else round(float(number), 4)

    return {"value": short(value), "low": short(low), "high": short(high), "cases": cases}


def proportion(count: int, cases: int) -> Figure:
    """`count` of `cases`, with the score interval (Wilson 1927)."""
    if cases == 0:
        return figure(None, None, None, 0)
    share = count / cases
    centre = share + _Z**2 / (2 * cases)
    half = _Z * math.sqrt(share * (1 - share) / cases + (_Z / cases) ** 2 / 4)
    low, high = ((centre + sign * half) / (1 + _Z**2 / cases) for sign in (-1, 1))
    # at the ends the formula gives 0 and 1 but for rounding
    low = 0.0 if count == 0 else max(0.0, low)
    high = 1.0 if count == cases else min(1.0, high)
    return figure(share, low, high, cases)


def confusion(truth: Truth, scores: Scores, threshold: float) -> dict[str, int]:
    """Films by what they are and what they are called; a score at the threshold is positive."""
    called = scores >= threshold
    return {
        "true_positive": int((called & truth).sum()),
        "false_negative": int((~called & truth).sum()),
        "true_negative": int((~called & ~truth).sum()),
        "false_positive": int((called & ~truth).sum()),
    }


def shares(counts: dict[str, int]) -> dict[str, Figure]:
    """Accuracy, sensitivity (of the positive films, those called positive), specificity (of
    the negative ones, those called negative), and the predictive values in this sample."""
    tp, fn = counts["true_positive"], counts["false_negative"]
    tn, fp = counts["true_negative"], counts["false_positive"]
    films = tp + fn + tn + fp
    here = {"prevalence": round((tp + fn) / films, 4) if films else None}
    return {
        "accuracy": proportion(tp + tn, films),
        "sensitivity": proportion(tp, tp + fn),
        "specificity": proportion(tn, tn + fp),
        "sample_ppv": proportion(tp, tp + fp) | here,
        "sample_npv": proportion(tn, tn + fn) | here,
    }


def predictive(counts: dict[str, int], prevalence: float | None) -> dict[str, Figure]:
    """`ppv` and `npv` where `prevalence` of those who are examined have the finding (Bayes).

    A set of training films is put together half and half; what a positive call is worth on
    the ward depends on how rare the finding is there. None for the values when no
    prevalence is stated. The interval is the logit interval of Mercaldo, Lau and Zhou
    (2007), their adjusted one when a share is 0 or 1.
    """
    tp, fn = counts["true_positive"], counts["false_negative"]
    tn, fp = counts["true_negative"], counts["false_positive"]
    cases = tp + fn + tn + fp
    if prevalence is None or not tp + fn or not tn + fp:
        nothing = figure(None, None, None, cases) | {"prevalence": prevalence}
        return {"ppv": nothing, "npv": dict(nothing)}
    odds = prevalence / (1 - prevalence)
    # PPV: odds of the finding times the likelihood ratio of a positive call; NPV alike
    ppv = _by_bayes((tp, tp + fn), (fp, fp + tn), odds, cases)
    npv = _by_bayes((tn, tn + fp), (fn, fn + tp), 1 / odds, cases)
    return {"ppv": ppv | {"prevalence": prevalence}, "npv": npv | {"prevalence": prevalence}}


def predictive_table(counts: dict[str, int], stated: float | None) -> list[dict[str, Any]]:
    """`predictive` over a range of prevalences, the stated one among them."""
    among = sorted({*PREVALENCES, *([] if stated is None else [stated])})
    return [{"prevalence": value, **predictive(counts, value)} for value in among]


def _by_bayes(right: tuple[int, int], wrong: tuple[int, int], odds: float, cases: int) -> Figure:
    """`right` of those who have it and `wrong` of those who have not are called so."""
    value = _posterior(right[0] / right[1], wrong[0] / wrong[1], odds)
    first, second = right, wrong
    adjusted = 0 in (right[0], wrong[0], right[1] - right[0], wrong[1] - wrong[0])
    extra = _Z**2 if adjusted else 0.0
    p, q = ((n + extra / 2) / (of + extra) for n, of in (first, second))
    variance = (1 - p) / (p * (right[1] + extra)) + (1 - q) / (q * (wrong[1] + extra))
    centre, half = math.log(odds * p / q), _Z * math.sqrt(variance)
    low, high = (1 / (1 + math.exp(-(centre + sign * half))) for sign in (-1, 1))
    if value is None:
        return figure(None, None, None, cases)
    return figure(value, min(low, value), max(high, value), cases)


def _posterior(right: float, wrong: float, odds: float) -> float | None:
    called = odds * right + wrong
    return odds * right / called if called > 0 else None


def agreeing(truth: Truth, scores: Scores, threshold: float) -> Figure:
    """Accuracy of some of the films."""
    return proportion(int(np.sum((scores >= threshold) == truth)), len(truth))
