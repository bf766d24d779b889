"""An assessment as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from trainer.evaluate.assessment import Assessment
from trainer.evaluate.plots import spoken
from trainer.evaluate.tables import FIGURE_NAMES, figure_name

_GROUP: Final = 32
"""Letters of the name of a source or view."""


def lines(told: Assessment) -> Iterator[str]:
    """Counts, figures, the table per source and per view, and the word on confounding."""
    yield (
        f"{told.films} films of {told.patients} patients: {told.positives} {told.positive_class} "
        f"(the positive class), {told.negatives} not"
    )
    yield f"threshold {told.threshold:.4f}: {told.threshold_rule}"
    counts = told.metrics["confusion"]
    yield (
        f"of the positive films {counts['true_positive']} called positive and "
        f"{counts['false_negative']} missed; of the others {counts['true_negative']} called "
        f"negative and {counts['false_positive']} false alarms"
    )
    yield ""
    yield f"{'figure':<50}  {'value (95 %)':<20}  films"
    for name in FIGURE_NAMES:
        figure = told.metrics[name]
        if name in ("ppv", "npv") and figure["prevalence"] is None:
            continue
        yield f"{figure_name(name, figure):<50}  {spoken(figure):<20}  {figure['cases']:>5}"
    for name, rows in (("source", told.per_source), ("view", told.per_view)):
        yield ""
        yield (
            f"{name:<{_GROUP}}  films  patients  positive    not  sensitivity  specificity    AUC"
        )
        for row in rows:
            yield _group(name, row)
    yield ""
    yield f"{'WARNING: ' if told.confounding.warning else ''}{told.confounding.sentence}"


def _group(name: str, row: dict[str, Any]) -> str:
    label = row[name] if len(row[name]) <= _GROUP else row[name][: _GROUP - 1] + "…"
    return (
        f"{label:<{_GROUP}}  {row['films']:>5}  {row['patients']:>8}  {row['positives']:>8}  "
        f"{row['negatives']:>5}  {_share(row['sensitivity']):>11}  "
        f"{_share(row['specificity']):>11}  {_share(row['auc']):>5}"
    )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
