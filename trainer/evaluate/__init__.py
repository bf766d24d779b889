"""What a model is worth on films it has not seen: figures, intervals, report.

Predictions in, `Assessment` out, in pure numpy: proportions with Wilson intervals, ranking
with intervals resampled by patient, calibration, the same per source and per view, and a
judgement on whether the model has learned the finding or the source. `report` and `plots`
draw it, `tensorboard` logs it, `served` asks a published version.

Sensitivity is the share of positive films that are called positive, specificity the share
of negative films that are called negative; the positive class is named. (A well-known script
that this trainer descends from prints the two under each other's name.)
"""

from __future__ import annotations

from trainer.evaluate.assessment import Assessment, assess, judge
from trainer.evaluate.confounding import Confounding, SourceCounts, source_counts
from trainer.evaluate.predictions import Predictions
from trainer.evaluate.ranking import auc, average_precision
from trainer.evaluate.report import write_report
from trainer.evaluate.tensorboard import write_tensorboard
from trainer.evaluate.thresholds import Rule, choose_threshold

__all__ = [
    "Assessment",
    "Confounding",
    "Predictions",
    "Rule",
    "SourceCounts",
    "assess",
    "auc",
    "average_precision",
    "choose_threshold",
    "judge",
    "source_counts",
    "write_report",
    "write_tensorboard",
]
