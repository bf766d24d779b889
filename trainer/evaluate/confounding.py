"""What knowing the source is worth: has it learned the finding, or where a film comes from?

On films of several hospitals a network can reach a high AUC by telling the hospitals apart,
when some send mostly positive films. Between two films of the *same* source that knowledge
is worth nothing, so AUC over such pairs is the honest figure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from trainer.evaluate.predictions import Truth, numbered
from trainer.evaluate.proportions import Figure, figure
from trainer.evaluate.ranking import Values, area_figure, auc, interval

SourceCounts = Mapping[str, tuple[int, int]]
"""Positive and negative films of a source, e.g. in the training part."""
Verdict = Literal["no sign", "possible", "confounded", "cannot be judged", "one source"]

FEWEST_OF_A_LABEL: Final = 10
"""Films of each label within mixed sources that a judgement needs."""
_MUCH: Final = 0.05


class Labelled(Protocol):
    """The part of `data.Case` that is counted."""

    @property
    def source(self) -> str: ...
    @property
    def label(self) -> str: ...


def source_counts(films: Sequence[Labelled], positive_class: str) -> SourceCounts:
    """Positive and negative films per source, e.g. of the training part."""
    counts: dict[str, tuple[int, int]] = {}
    for film in films:
        positives, negatives = counts.get(film.source, (0, 0))
        positive = film.label == positive_class
        counts[film.source] = (positives + positive, negatives + (not positive))
    return counts


@dataclass(frozen=True, kw_only=True)
class Mixed:
    """Which films are of a source that holds both labels.

    A film without a source is of none: nobody knows whether two such films share one.
    """

    strata: NDArray[np.intp]
    """intp [N]: the number of a film's source, -1 for films outside mixed sources."""
    sources: int
    positives: int
    negatives: int

    @classmethod
    def of(cls, sources: Sequence[str], truth: Truth) -> Mixed:
        numbers = numbered(sources)
        strata = np.full(len(numbers), -1, dtype=np.intp)
        count = 0
        for number in np.unique(numbers):
            inside = numbers == number
            if sources[int(inside.argmax())] and 0 < truth[inside].mean() < 1:
                strata[inside] = count
                count += 1
        mixed = strata >= 0
        return cls(
            strata=strata,
            sources=count,
            positives=int((mixed & truth).sum()),
            negatives=int((mixed & ~truth).sum()),
        )

    @property
    def pooled(self) -> NDArray[np.intp]:
        """As strata: all films of mixed sources as if of one source."""
        return np.where(self.strata >= 0, 0, -1)

    @property
    def films(self) -> int:
        return self.positives + self.negatives


def mixed_figure(
    mixed: Mixed,
    within: tuple[float | None, Values],
    pooled: tuple[float | None, Values],
    patients: tuple[int, int],
) -> Figure:
    """`auc_mixed_sources`: the value is over pairs of films of the same source.

    `pooled` is over all pairs of films of mixed sources: still confounded when the sources
    differ in their share of positives, so it stands beside and not in front. `patients` are
    those with a positive and with a negative film of a mixed source.
    """
    return area_figure(*within, mixed.films, patients) | {
        "positives": mixed.positives,
        "negatives": mixed.negatives,
        "sources": mixed.sources,
        "pairs": "within a source",
        "pooled": area_figure(*pooled, mixed.films, patients),
    }


def baseline_auc(
    sources: Sequence[str], truth: Truth, training: SourceCounts | None
) -> tuple[float | None, str]:
    """AUC of guessing by the source alone, and how the guess was made.

    The guess is the source's share of positives in the training part; a source that was not
    there gets the share of all. Without `training` every pair is judged by the
    shares among the other films (leave-pair-out, Airola et al. 2011); leaving out one film at
    a time would turn every uninformative source against itself.
    """
    if training is not None:
        size = sum(map(sum, training.values()))
        common = sum(counts[0] for counts in training.values()) / size if size else 0.5
        guess = np.array(
            [
                training[source][0] / sum(training[source])
                if sum(training.get(source, (0, 0)))
                else common
                for source in sources
            ]
        )
        return auc(truth, guess), "share of positives in the training part"
    positive = Counter(s for s, t in zip(sources, truth, strict=True) if t)
    negative = Counter(s for s, t in zip(sources, truth, strict=True) if not t)
    pairs = positive.total() * negative.total()
    if not pairs:
        return None, "other held-out films of the source"
    films = positive + negative
    overall = (positive.total() - 1) / max(1, films.total() - 2)
    ordered = 0.0
    for first, of_first in positive.items():
        others = films[first] - 1
        share = (of_first - 1) / others if others else overall
        for second, of_second in negative.items():
            others = films[second] - 1
            against = positive[second] / others if others else overall
            chance = 0.5 if first == second or share == against else float(share > against)
            ordered += of_first * of_second * chance
    return ordered / pairs, "other held-out films of the source"


@dataclass(frozen=True, kw_only=True)
class Confounding:
    """Has it learned the finding, or where a film comes from?"""

    verdict: Verdict
    sentence: str
    auc: float | None
    auc_within_sources: float | None
    auc_by_source_alone: float | None

    @property
    def warning(self) -> bool:
        """Whether the sentence should stand where nobody overlooks it."""
        return self.verdict not in ("no sign", "one source")

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


def judge_confounding(
    sources: Sequence[str],
    mixed: Mixed,
    over_all: tuple[float | None, Values],
    within: tuple[float | None, Values],
    baseline: float | None,
) -> Confounding:
    """Compare AUC over all films with AUC over pairs of the same source.

    A difference counts as much from 0.05 on; when its interval (the same resamples for
    both) excludes 0 the model is called confounded, else possibly so.
    """
    every, inside, known = over_all[0], within[0], set(sources)
    alone = "" if baseline is None else f"; guessing by the source alone reaches {baseline:.3f}"
    verdict: Verdict = "cannot be judged"
    if every is None:
        sentence = "source confounding cannot be judged: one label only"
    elif known == {""}:
        sentence = "source confounding cannot be judged: the films do not say their source"
    elif len(known) == 1:
        verdict, sentence = "one source", "all films are of one source: other sources may differ"
    elif inside is None:
        sentence = (
            "source confounding cannot be judged: no source holds both labels, so the AUC of "
            f"{every:.3f} may be the source and not the finding{alone}"
        )
    else:
        figures = (
            f"AUC {every:.3f} over all films, {inside:.3f} between films of the same source "
            f"({mixed.positives} positive and {mixed.negatives} negative films of "
            f"{mixed.sources} sources with both labels){alone}"
        )
        excess, (low, high) = every - inside, interval(over_all[1] - within[1])
        if min(mixed.positives, mixed.negatives) < FEWEST_OF_A_LABEL:
            sentence = (
                "source confounding cannot be judged, films of each label needed are "
                f"{FEWEST_OF_A_LABEL}: {figures}"
            )
        elif excess < _MUCH:
            verdict, sentence = "no sign", f"no sign of source confounding: {figures}"
        elif low is None or high is None or low <= 0:
            verdict, sentence = "possible", f"part of the AUC may be the source: {figures}"
        else:
            verdict = "confounded"
            sentence = (
                f"part of the AUC is the source and not the finding: {figures} "
                f"(difference {excess:.3f}, 95 % {low:.3f} to {high:.3f})"
            )
    return Confounding(
        verdict=verdict,
        sentence=sentence,
        auc=_short(every),
        auc_within_sources=_short(inside),
        auc_by_source_alone=_short(baseline),
    )


def _short(value: float | None) -> float | None:
    return None if value is None else figure(value, None, None, 0)["value"]
