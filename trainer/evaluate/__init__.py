"""What a model is worth on films it has not seen: figures with their intervals.

Pure numpy; `truth` is bool [N], `scores` are probabilities of the positive class [N].

Sensitivity is the share of positive films that are called positive, specificity the share
of negative films that are called negative. (A well-known script that this trainer descends
from prints the two under each other's name.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Truth = NDArray[np.bool_]
Scores = NDArray[np.float64]

THRESHOLD_RULE: Final = "largest Youden index on the validation part, middle of the best interval"
_Z: Final = 1.959964


def choose_threshold(truth: Truth, scores: Scores) -> float:
    """Where sensitivity + specificity - 1 (Youden 1950) is largest.

    Every threshold between two neighbouring scores gives the same calls; the middle of the
    interval is taken, and of several best intervals the one nearest to 0.5.
    """
    edges = np.concatenate(([0.0], np.unique(scores), [1.0]))
    middles = (edges[:-1] + edges[1:]) / 2
    youden = [_youden(truth, scores >= middle) for middle in middles]
    best = [m for m, y in zip(middles, youden, strict=True) if y >= max(youden) - 1e-12]
    return float(min(best, key=lambda middle: abs(middle - 0.5)))


def auc(truth: Truth, scores: Scores) -> float:
    """Area under the ROC curve: how often a positive film scores above a negative one."""
    positive, negative = scores[truth], scores[~truth]
    if not len(positive) or not len(negative):
        return math.nan
    above = np.greater.outer(positive, negative).mean()
    level = np.equal.outer(positive, negative).mean()
    return float(above + level / 2)


def metrics(truth: Truth, scores: Scores, threshold: float) -> dict[str, Any]:
    """Accuracy, sensitivity, specificity (Wilson 1927 intervals) and AUC (Hanley and
    McNeil 1982), each as value, low, high (95 %) and the number of films it stands on."""
    called = scores >= threshold
    positives, negatives = int(truth.sum()), int((~truth).sum())
    true_positive = int((called & truth).sum())
    true_negative = int((~called & ~truth).sum())
    return {
        "accuracy": _proportion(true_positive + true_negative, positives + negatives),
        "sensitivity": _proportion(true_positive, positives),
        "specificity": _proportion(true_negative, negatives),
        "auc": _area(truth, scores),
        "confusion": {
            "true_positive": true_positive,
            "false_negative": positives - true_positive,
            "true_negative": true_negative,
            "false_positive": negatives - true_negative,
        },
    }


def by_source(
    sources: Sequence[str], truth: Truth, scores: Scores, threshold: float
) -> list[dict[str, Any]]:
    """One row per source. AUC is None where a source holds one label only: there nothing
    can be told apart, and a model may have learned the source instead of the finding."""
    rows = []
    for source in sorted(set(sources)):
        chosen = np.array([name == source for name in sources])
        inside, values = truth[chosen], scores[chosen]
        area = auc(inside, values)
        rows.append(
            {
                "source": source or "unknown",
                "positives": int(inside.sum()),
                "negatives": int((~inside).sum()),
                "accuracy": round(float(((values >= threshold) == inside).mean()), 4),
                "auc": None if math.isnan(area) else round(area, 4),
            }
        )
    return rows


def _youden(truth: Truth, called: NDArray[np.bool_]) -> float:
    return float(called[truth].mean() + (~called[~truth]).mean() - 1)


def _proportion(count: int, cases: int) -> dict[str, float | int | None]:
    if cases == 0:
        return {"value": None, "low": None, "high": None, "cases": 0}
    share = count / cases
    centre = (share + _Z**2 / (2 * cases)) / (1 + _Z**2 / cases)
    half = _Z / (1 + _Z**2 / cases) * math.sqrt(share * (1 - share) / cases + (_Z / cases) ** 2 / 4)
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return {"value": round(share, 4), "low": round(low, 4), "high": round(high, 4), "cases": cases}


def _area(truth: Truth, scores: Scores) -> dict[str, float | int | None]:
    area, positives, negatives = auc(truth, scores), int(truth.sum()), int((~truth).sum())
    if math.isnan(area):
        return {"value": None, "low": None, "high": None, "cases": len(truth)}
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (
        area * (1 - area) + (positives - 1) * (q1 - area**2) + (negatives - 1) * (q2 - area**2)
    )
    half = _Z * math.sqrt(max(0.0, variance) / (positives * negatives))
    low, high = max(0.0, area - half), min(1.0, area + half)
    return {
        "value": round(area, 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "cases": positives + negatives,
    }
