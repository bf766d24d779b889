"""The answers of a version, as arrays that can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Scored(Protocol):
    """The part of `evaluate.Predictions` that the gate reads; one entry per film."""

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def patients(self) -> tuple[str, ...]: ...
    @property
    def sources(self) -> tuple[str, ...]: ...
    @property
    def truth(self) -> NDArray[np.bool_]: ...
    @property
    def scores(self) -> NDArray[np.float64]: ...


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A version's answers as it serves them (calibrated), and where it draws the line."""

    predictions: Scored
    threshold: float


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Arrays [N] over films; `patients` and `strata` number patients and sources from 0."""

    truth: NDArray[np.bool_]
    scores: NDArray[np.float64]
    called: NDArray[np.bool_]
    patients: NDArray[np.intp]
    strata: NDArray[np.intp]
    source_names: tuple[str, ...]

    @classmethod
    def of(cls, judged: Judged, chosen: Sequence[int] | None = None) -> Answers:
        """All films, or the `chosen` ones in that order."""
        told = judged.predictions
        if len(set(told.names)) != len(told.names):
            raise ValueError("a film is named twice in the predictions")
        index = np.arange(len(told.names)) if chosen is None else np.array(chosen, dtype=np.intp)
        scores = np.asarray(told.scores, dtype=np.float64)[index]
        sources = [told.sources[i] for i in index]
        names = tuple(sorted(set(sources)))
        return cls(
            truth=np.asarray(told.truth, dtype=np.bool_)[index],
            scores=scores,
            called=scores >= judged.threshold,
            patients=_numbered([told.patients[i] for i in index]),
            strata=np.array([names.index(source) for source in sources], dtype=np.intp),
            source_names=names,
        )

    @property
    def mixed(self) -> NDArray[np.bool_]:
        """Films of sources that hold both labels."""
        both = [
            0 < self.truth[self.strata == source].mean() < 1
            for source in range(len(self.source_names))
        ]
        return np.array(both, dtype=np.bool_)[self.strata]


def paired(candidate: Judged, current: Judged) -> tuple[Answers, Answers]:
    """Both on the films that both answered, in the same order. Raises `ValueError`."""
    place = {name: index for index, name in enumerate(current.predictions.names)}
    shared = [
        (index, place[name])
        for index, name in enumerate(candidate.predictions.names)
        if name in place
    ]
    ours = Answers.of(candidate, [first for first, _ in shared])
    theirs = Answers.of(current, [second for _, second in shared])
    if not np.array_equal(ours.truth, theirs.truth):
        raise ValueError("candidate and current version disagree about the label of a film")
    return ours, theirs


def _numbered(values: list[str]) -> NDArray[np.intp]:
    numbers = {value: number for number, value in enumerate(dict.fromkeys(values))}
    return np.array([numbers[value] for value in values], dtype=np.intp)
