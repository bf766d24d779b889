"""The same picture more than once: as the same file, or as another one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from trainer.audit.fingerprints import SAME, Comparison, near_pairs
from trainer.audit.measure import Film

MAXIMUM_COMPARISONS: Final = 100_000
"""Of pairs with near fingerprints, the nearest first: about a minute."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Films that show the same picture, at least two, by name."""

    films: tuple[Film, ...]
    exact: bool
    """All are the same file, byte by byte."""
    sameness: float
    """The lowest that made two of them belong together; 1 when `exact`."""

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(sorted({film.case.label for film in self.films}))

    @property
    def patients(self) -> int:
        return len({film.case.patient for film in self.films})


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Every group, ordered by the name of its first film."""

    groups: tuple[Group, ...]
    compared: int
    """Pairs with near fingerprints that were compared closely."""
    not_compared: int
    """Pairs that were left out because there were more than `MAXIMUM_COMPARISONS`."""


def find(films: Sequence[Film], *, maximum_comparisons: int = MAXIMUM_COMPARISONS) -> Duplicates:
    """Group the films that show the same picture."""
    by_content: dict[str, list[Film]] = defaultdict(list)
    for film in films:
        by_content[film.sha256].append(film)
    ones = [same[0] for same in by_content.values()]
    first, second, _ = near_pairs(np.array([film.fingerprint for film in ones], np.uint64))
    compared = min(len(first), maximum_comparisons)
    comparison = Comparison([film.thumbnail for film in ones])
    belongs = _Groups(len(ones))
    lowest: dict[int, float] = {}
    for one, other in zip(first[:compared].tolist(), second[:compared].tolist(), strict=True):
        sameness = comparison.sameness(one, other)
        if sameness >= SAME:
            belongs.join(one, other)
            lowest[one] = min(lowest.get(one, 1.0), sameness)
            lowest[other] = min(lowest.get(other, 1.0), sameness)
    groups = []
    for members in belongs.groups():
        same = [film for index in members for film in by_content[ones[index].sha256]]
        if len(same) > 1:
            groups.append(
                Group(
                    films=tuple(sorted(same, key=lambda film: film.case.name)),
                    exact=len(members) == 1,
                    sameness=min(lowest.get(index, 1.0) for index in members),
                )
            )
    return Duplicates(
        groups=tuple(sorted(groups, key=lambda group: group.films[0].case.name)),
        compared=compared,
        not_compared=len(first) - compared,
    )


class _Groups:
    """Disjoint sets of 0..N-1 (union-find)."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def join(self, one: int, other: int) -> None:
        low, high = sorted((self._root(one), self._root(other)))
        self._parent[high] = low

    def groups(self) -> list[list[int]]:
        found: dict[int, list[int]] = defaultdict(list)
        for index in range(len(self._parent)):
            found[self._root(index)].append(index)
        return list(found.values())

    def _root(self, index: int) -> int:
        while self._parent[index] != index:
            self._parent[index] = self._parent[self._parent[index]]
            index = self._parent[index]
        return index
