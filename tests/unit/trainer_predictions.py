"""Predictions made of arrays, for the tests of `trainer.evaluate`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.evaluate import Predictions


def predictions(
    truth: np.ndarray,
    scores: np.ndarray,
    *,
    sources: Sequence[str] | None = None,
    patients: Sequence[str] | None = None,
    views: Sequence[str] | None = None,
    prefix: str = "film",
) -> Predictions:
    """Of two classes; a film is its own patient unless `patients` says otherwise."""
    names = tuple(f"{prefix}-{number}" for number in range(len(truth)))
    nothing = ("",) * len(truth)
    return Predictions(
        names=names,
        patients=tuple(patients or [f"patient of {name}" for name in names]),
        sources=tuple(sources or nothing),
        views=tuple(views or nothing),
        labels=tuple("positive" if value else "negative" for value in truth),
        probabilities=np.stack([1 - scores, scores], axis=1),
        classes=("negative", "positive"),
        positive_class="positive",
    )
