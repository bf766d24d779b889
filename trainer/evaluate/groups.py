"""The same figures per source and per view."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, Literal

import numpy as np

from trainer.evaluate.predictions import Predictions
from trainer.evaluate.proportions import confusion, shares
from trainer.evaluate.ranking import auc

UNKNOWN: Final = "unknown"


def group_rows(
    name: Literal["source", "view"],
    groups: Sequence[str],
    predictions: Predictions,
    threshold: float,
) -> list[dict[str, Any]]:
    """One row per group, the largest first: films, patients, shares with Wilson intervals.

    AUC is None where a group holds one label only: there nothing can be told apart, and a
    model may have learned the group instead of the finding.
    """
    truth, scores = predictions.truth, predictions.scores
    rows = []
    for group, films in sorted(Counter(groups).items(), key=lambda item: (-item[1], item[0])):
        inside = np.array([value == group for value in groups], dtype=np.bool_)
        told = shares(confusion(truth[inside], scores[inside], threshold))
        area = auc(truth[inside], scores[inside])
        row: dict[str, Any] = {
            name: group or UNKNOWN,
            "films": films,
            "patients": len({p for p, i in zip(predictions.patients, inside, strict=True) if i}),
            "positives": int(truth[inside].sum()),
            "negatives": int((~truth[inside]).sum()),
        }
        for share in ("accuracy", "sensitivity", "specificity"):
            row[share] = told[share]["value"]
            row[f"{share}_interval"] = [told[share]["low"], told[share]["high"]]
        rows.append(row | {"auc": None if area is None else round(area, 4)})
    return rows
