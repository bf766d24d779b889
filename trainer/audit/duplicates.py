"""The same picture more than once: as the same file, or as another one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from trainer.audit.fingerprints import MINIMUM_LIKENESS, likeness, near_pairs
from trainer.audit.measure import Film
from trainer.audit.registration import SAME, agreement

MAXIMUM_LIKENESSES: Final = 500_000
"""Of pairs with near fingerprints, the nearest first: two or three minutes."""
MAXIMUM_REGISTRATIONS: Final = 1_500
"""Of pairs with like structure, the likest first: about a minute. Copies are the likest."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Films that show the same picture, at least two, by name."""

    films: tuple[Film, ...]
    exact: bool
    """All are the same file, byte by byte."""
    agreement: float
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
    """Pairs that were laid over each other."""
    not_compared: int
    """Pairs that were left out because there were too many."""


def find(
    films: Sequence[Film],
    *,
    maximum_likenesses: int = MAXIMUM_LIKENESSES,
    maximum_registrations: int = MAXIMUM_REGISTRATIONS,
) -> Duplicates:
    """Group the films that show the same picture."""
    by_content: dict[str, list[Film]] = defaultdict(list)
    for film in films:
        by_content[film.sha256].append(film)
    ones = [same[0] for same in by_content.values()]
    thumbnails = [film.thumbnail for film in ones]
    pairs, left_out = _like_pairs(ones, maximum_likenesses)
    belongs = _Groups(len(ones))
    lowest = [1.0] * len(ones)
    for one, other in pairs[:maximum_registrations]:
        found = agreement(thumbnails[one], thumbnails[other])
        if found >= SAME:
            belongs.join(one, other)
            lowest[one], lowest[other] = min(lowest[one], found), min(lowest[other], found)
    groups = []
    for members in belongs.groups():
        same = [film for index in members for film in by_content[ones[index].sha256]]
        if len(same) > 1:
            groups.append(
                Group(
                    films=tuple(sorted(same, key=lambda film: film.case.name)),
                    exact=len(members) == 1,
                    agreement=min(lowest[index] for index in members),
                )
            )
    return Duplicates(
        groups=tuple(sorted(groups, key=lambda group: group.films[0].case.name)),
        compared=min(len(pairs), maximum_registrations),
        not_compared=left_out + max(0, len(pairs) - maximum_registrations),
    )


def _like_pairs(films: Sequence[Film], maximum: int) -> tuple[list[tuple[int, int]], int]:
    """Pairs with like structure, the likest first, and how many near pairs were left out."""
    if len(films) < 2:
        return [], 0
    near = near_pairs(np.stack([film.fingerprints for film in films]))
    left_out = max(0, len(near.first) - maximum)
    first, second = near.first[:maximum], near.second[:maximum]
    found = likeness([film.thumbnail for film in films], first, second)
    order = np.argsort(-found, kind="stable")
    order = order[found[order] >= MINIMUM_LIKENESS]
    return list(zip(first[order].tolist(), second[order].tolist(), strict=True)), left_out


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
