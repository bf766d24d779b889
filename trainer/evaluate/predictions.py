"""What a model said about films, and what is true of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

Truth = NDArray[np.bool_]
"""bool [N]: whether a film is of the positive class."""
Scores = NDArray[np.float64]
"""float64 [N]: the probability of the positive class."""

_SMALLEST: Final = 1e-30
"""Below it a probability says nothing more; keeps logarithms finite."""


class Film(Protocol):
    """The part of `data.Case` that predictions carry."""

    @property
    def name(self) -> str: ...
    @property
    def patient(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def view(self) -> str: ...
    @property
    def label(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Probabilities of films, one entry per film in every field.

    Raises `ValueError` when the fields do not belong together.
    """

    names: tuple[str, ...]
    patients: tuple[str, ...]
    """Only to count and to resample by; never written anywhere."""
    sources: tuple[str, ...]
    views: tuple[str, ...]
    labels: tuple[str, ...]
    probabilities: NDArray[np.float64]
    """float64 [N, C], each row sums to 1; the softmax as it comes unless `scaled`."""
    classes: tuple[str, ...]
    positive_class: str

    def __post_init__(self) -> None:
        films, count = len(self.names), len(self.classes)
        for name in ("patients", "sources", "views", "labels"):
            if len(getattr(self, name)) != films:
                raise ValueError(f"{films} films have {len(getattr(self, name))} {name}")
        if self.probabilities.shape != (films, count):
            raise ValueError(
                f"probabilities are {list(self.probabilities.shape)}, expected [{films}, {count}]"
            )
        if films and not (
            np.isfinite(self.probabilities).all()
            and np.allclose(self.probabilities.sum(axis=1), 1.0, atol=1e-3)
        ):
            raise ValueError("probabilities are not finite, or the rows do not sum to 1")
        if self.positive_class not in self.classes:
            raise ValueError(f"{self.positive_class!r} is none of the classes {self.classes}")
        unknown = sorted(set(self.labels) - set(self.classes))
        if unknown:
            raise ValueError(f"label {unknown[0]!r} is none of the classes {self.classes}")

    @classmethod
    def of(
        cls,
        films: Sequence[Film],
        probabilities: NDArray[np.floating],
        *,
        classes: tuple[str, ...],
        positive_class: str,
    ) -> Predictions:
        """Of `films` (cases), with `probabilities` [N, C] in the same order."""
        return cls(
            names=tuple(film.name for film in films),
            patients=tuple(film.patient for film in films),
            sources=tuple(film.source for film in films),
            views=tuple(film.view for film in films),
            labels=tuple(film.label for film in films),
            probabilities=np.asarray(probabilities, dtype=np.float64),
            classes=classes,
            positive_class=positive_class,
        )

    @property
    def truth(self) -> Truth:
        """bool [N]"""
        return np.array([label == self.positive_class for label in self.labels], dtype=np.bool_)

    @property
    def scores(self) -> Scores:
        """float64 [N]: the probability of the positive class."""
        return self.probabilities[:, self.classes.index(self.positive_class)]

    @property
    def targets(self) -> NDArray[np.intp]:
        """intp [N]: the place of each film's label in `classes`."""
        place = {name: index for index, name in enumerate(self.classes)}
        return np.array([place[label] for label in self.labels], dtype=np.intp)

    @property
    def logits(self) -> NDArray[np.float64]:
        """float64 [N, C]: up to a constant per film, what the softmax took."""
        return np.log(np.maximum(self.probabilities, _SMALLEST))

    def scaled(self, temperature: float) -> Predictions:
        """With the logits divided by `temperature` (Guo et al. 2017)."""
        if temperature == 1.0:
            return self
        divided = self.logits / temperature
        powers = np.exp(divided - divided.max(axis=1, keepdims=True, initial=-np.inf))
        return self._with(powers / powers.sum(axis=1, keepdims=True))

    def chosen(self, index: Sequence[int] | NDArray[np.intp]) -> Predictions:
        """Of the films at `index`, in that order."""

        def part(values: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(values[i] for i in index)

        return Predictions(
            names=part(self.names),
            patients=part(self.patients),
            sources=part(self.sources),
            views=part(self.views),
            labels=part(self.labels),
            probabilities=self.probabilities[np.asarray(index, dtype=np.intp)],
            classes=self.classes,
            positive_class=self.positive_class,
        )

    def _with(self, probabilities: NDArray[np.float64]) -> Predictions:
        return Predictions(
            names=self.names,
            patients=self.patients,
            sources=self.sources,
            views=self.views,
            labels=self.labels,
            probabilities=probabilities,
            classes=self.classes,
            positive_class=self.positive_class,
        )


def numbered(values: Sequence[str]) -> NDArray[np.intp]:
    """intp [N]: equal values get the same number, from 0 in order of appearance."""
    numbers = {value: number for number, value in enumerate(dict.fromkeys(values))}
    return np.array([numbers[value] for value in values], dtype=np.intp)
