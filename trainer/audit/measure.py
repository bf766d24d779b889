"""A film as the audit sees it: opened once, and only what is needed of it is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dicomnode.findings import Reason
from trainer import data
from trainer.audit import fingerprints, looks


@dataclass(frozen=True, kw_only=True)
class Film:
    """A film that can be decoded."""

    case: data.Case
    sha256: str
    rows: int
    columns: int
    spread: int
    """Greys of 255 between the 1st and 99th percentile."""
    look: looks.Look
    fingerprints: NDArray[np.uint64]
    """uint64 [2], and"""
    thumbnail: NDArray[np.uint8]
    """uint8 [96, 96], for comparing."""


@dataclass(frozen=True, kw_only=True)
class Unusable:
    """A film that training would skip."""

    case: data.Case
    reason: str
    refusal: Reason | None
    """The gate's, when the node would not evaluate it."""


def measure(
    cases: Sequence[data.Case],
    *,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Film], list[Unusable]]:
    """Open every film; about 10 KB are kept of each. Order as in `cases`."""
    films: list[Film] = []
    unusable: list[Unusable] = []
    for done, (_, result) in enumerate(data.in_order(_measured, cases, workers), start=1):
        if isinstance(result, Film):
            films.append(result)
        else:
            unusable.append(result)
        if progress is not None:
            progress(done, len(cases))
    return films, unusable


def _measured(case: data.Case) -> Film | Unusable:
    try:
        content = data.content(case)
        grey = data.decoded(case, content)
    except data.UnusableFilm as error:
        return Unusable(case=case, reason=str(error), refusal=error.refusal)
    return Film(
        case=case,
        sha256=hashlib.sha256(content).hexdigest(),
        rows=grey.shape[0],
        columns=grey.shape[1],
        spread=looks.spread(grey),
        look=looks.look(grey),
        fingerprints=fingerprints.fingerprints(grey),
        thumbnail=fingerprints.thumbnail(grey),
    )
