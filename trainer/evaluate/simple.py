"""The few figures of a run that keeps no predictions; `assess` says more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from trainer.evaluate import proportions, ranking
from trainer.evaluate.groups import group_rows
from trainer.evaluate.predictions import Predictions, Scores, Truth
from trainer.evaluate.thresholds import Rule

THRESHOLD_RULE: Final = Rule().sentence


def metrics(truth: Truth, scores: Scores, threshold: float) -> dict[str, Any]:
    counts = proportions.confusion(truth, scores, threshold)
    statistic = ranking.area(truth, scores)
    drawn = ranking.resampled([statistic], np.arange(len(truth)), 500, 42)[0]
    groups = int(truth.sum()), int((~truth).sum())
    area = ranking.area_figure(ranking.once(statistic, len(truth)), drawn, len(truth), groups)
    return proportions.shares(counts) | {"auc": area, "confusion": counts}


def by_source(
    sources: Sequence[str], truth: Truth, scores: Scores, threshold: float
) -> list[dict[str, Any]]:
    names = tuple(str(number) for number in range(len(truth)))
    predictions = Predictions(
        names=names,
        patients=names,
        sources=tuple(sources),
        views=("",) * len(names),
        labels=tuple("positive" if value else "negative" for value in truth),
        probabilities=np.stack([1 - scores, scores], axis=1),
        classes=("negative", "positive"),
        positive_class="positive",
    )
    return group_rows("source", predictions.sources, predictions, threshold)
