"""Does something that is not the finding tell the label: the source, or the view?

If so, a model can be right without looking at the lungs, and figures over all films flatter
it (Zech et al. 2018, PLoS Medicine 15:e1002683; DeGrave et al. 2021, Nature Machine
Intelligence 3:610).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from trainer.data import Case

STRONG: Final = 0.3
"""Cramér's V from which on a warning is due: a medium effect (Cohen 1988)."""


@dataclass(frozen=True, kw_only=True)
class Confounding:
    """How much one thing that is known of every film tells of its label."""

    by: Literal["source", "view"]
    labels: tuple[str, ...]
    counts: dict[str, tuple[int, ...]]
    """Films of each label, per value; "" where it is not stated."""
    cramers_v: float
    """0 tells nothing, 1 tells the label (Cramér 1946)."""
    cramers_v_corrected: float
    """Less what chance alone gives with few films in many cells (Bergsma 2013)."""
    single_label_share: float
    """Part of the films whose value occurs with one label only."""
    guess_accuracy: float
    """Of guessing each film's label as the commonest of its value."""
    majority_accuracy: float
    """Of guessing the commonest label of all for every film."""

    @property
    def strong(self) -> bool:
        return self.cramers_v_corrected >= STRONG

    @property
    def mixed_films(self) -> dict[str, int]:
        """Films per label in values that hold every label: what an honest figure stands on."""
        mixed = [row for row in self.counts.values() if all(row)]
        return {label: sum(row[n] for row in mixed) for n, label in enumerate(self.labels)}

    def to_json(self) -> dict[str, Any]:
        return {
            "by": self.by,
            "counts": {
                value: dict(zip(self.labels, row, strict=True))
                for value, row in self.counts.items()
            },
            "cramers_v": round(self.cramers_v, 4),
            "cramers_v_corrected": round(self.cramers_v_corrected, 4),
            "single_label_share": round(self.single_label_share, 4),
            "guess_accuracy": round(self.guess_accuracy, 4),
            "majority_accuracy": round(self.majority_accuracy, 4),
            "mixed_films": self.mixed_films,
            "strong": self.strong,
        }


def confounding(cases: Sequence[Case], by: Literal["source", "view"]) -> Confounding:
    """Of at least one film."""
    pairs = Counter((str(getattr(case, by)), case.label) for case in cases)
    labels = tuple(sorted({label for _, label in pairs}))
    values = sorted({value for value, _ in pairs})
    counts = {value: tuple(pairs[value, label] for label in labels) for value in values}
    total = len(cases)
    phi_squared = _phi_squared(list(counts.values()), total)
    rows, columns = len(values), len(labels)
    return Confounding(
        by=by,
        labels=labels,
        counts=counts,
        cramers_v=_ratio(phi_squared, min(rows, columns) - 1),
        cramers_v_corrected=_corrected(phi_squared, rows, columns, total),
        single_label_share=sum(sum(row) for row in counts.values() if _one_label(row)) / total,
        guess_accuracy=sum(max(row) for row in counts.values()) / total,
        majority_accuracy=max(map(sum, zip(*counts.values(), strict=True))) / total,
    )


def _phi_squared(table: list[tuple[int, ...]], total: int) -> float:
    """Pearson's chi-squared of the table, per film."""
    columns = [sum(column) for column in zip(*table, strict=True)]
    expected = [[sum(row) * column / total for column in columns] for row in table]
    return (
        sum(
            (found - due) ** 2 / due
            for row, dues in zip(table, expected, strict=True)
            for found, due in zip(row, dues, strict=True)
        )
        / total
    )


def _corrected(phi_squared: float, rows: int, columns: int, total: int) -> float:
    if total < 2:
        return 0.0
    less = max(0.0, phi_squared - (rows - 1) * (columns - 1) / (total - 1))
    left = min(n - (n - 1) ** 2 / (total - 1) for n in (rows, columns)) - 1
    return _ratio(less, left)


def _ratio(phi_squared: float, degrees: float) -> float:
    return min(1.0, math.sqrt(phi_squared / degrees)) if degrees > 0 else 0.0


def _one_label(row: tuple[int, ...]) -> bool:
    return sum(map(bool, row)) == 1
