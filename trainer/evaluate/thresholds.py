"""Where a probability becomes a finding: rules, applied to the validation part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trainer.evaluate.predictions import Scores, Truth


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How a threshold is chosen.

    Without `minimum_sensitivity` by the largest Youden index (sensitivity + specificity - 1,
    Youden 1950); with it, by the best specificity among the thresholds that reach it.
    """

    minimum_sensitivity: float | None = None

    @property
    def sentence(self) -> str:
        """For the model card."""
        if self.minimum_sensitivity is None:
            chosen = "largest Youden index"
        else:
            chosen = f"best specificity with sensitivity >= {self.minimum_sensitivity:g}"
        return f"{chosen} on the validation part, middle of the best interval"


def choose_threshold(truth: Truth, scores: Scores, rule: Rule | None = None) -> float:
    """The threshold that `rule` (default: Youden) takes on these films.

    Every threshold between two neighbouring scores gives the same calls; the middle of the
    interval is taken, and of several best intervals the one nearest to 0.5. Without films
    of both labels there is nothing to choose by: 0.5.
    """
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        return 0.5
    minimum = (rule or Rule()).minimum_sensitivity
    edges = np.concatenate(([0.0], np.unique(scores), [1.0]))
    middles = (edges[:-1] + edges[1:]) / 2
    sensitivity = _at_or_above(scores[truth], middles) / positives
    specificity = 1 - _at_or_above(scores[~truth], middles) / negatives
    if minimum is None:
        merit = sensitivity + specificity
    else:
        merit = np.where(sensitivity >= minimum - 1e-12, specificity, -1.0)
    best = middles[merit >= merit.max() - 1e-12]
    return float(best[np.abs(best - 0.5).argmin()])


def _at_or_above(scores: Scores, thresholds: Scores) -> Scores:
    """How many of `scores` each threshold calls positive."""
    return (len(scores) - np.searchsorted(np.sort(scores), thresholds, side="left")).astype(float)
