"""Two versions side by side, from their cards and their lists of films."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dicomnode.modelcard import ModelCard
from trainer.registry.directory import folder_of, read_card
from trainer.registry.films import UsedFilm, used_films

_FACTS: Final = (
    "network",
    "classes",
    "positive_class",
    "preprocess_profile",
    "created_at",
    "parent_version",
    "seed",
    "training_seconds",
    "data_manifest_sha256",
    "device_uid",
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One fact of both versions; JSON values, None where a version does not say."""

    section: str
    """network, data, threshold, calibration, metrics or libraries."""
    name: str
    first: Any
    second: Any

    @property
    def differs(self) -> bool:
        return bool(self.first != self.second)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What distinguishes two versions."""

    first: int
    second: int
    rows: tuple[Row, ...]
    films: dict[str, int] | None
    """added, removed, relabelled, moved (to another part), kept; None when a version has
    no list of its films."""


def compare(base: Path, first: int, second: int) -> Comparison:
    """Version `first` against version `second`; either may be withdrawn.

    Raises `RegistryError`.
    """
    cards = read_card(base, first), read_card(base, second)
    films = used_films(folder_of(base, first)), used_films(folder_of(base, second))
    rows = [
        *(Row(section="network", name=name, **_sides(cards, name)) for name in _FACTS),
        *_data_rows(*films),
        *_pairs("threshold", cards[0].threshold.model_dump(), cards[1].threshold.model_dump()),
        *_pairs(
            "calibration", cards[0].calibration.model_dump(), cards[1].calibration.model_dump()
        ),
        *_pairs("metrics", cards[0].metrics, cards[1].metrics),
        *_pairs("libraries", cards[0].libraries, cards[1].libraries),
    ]
    return Comparison(first=first, second=second, rows=tuple(rows), films=_changes(*films))


def _sides(cards: tuple[ModelCard, ModelCard], name: str) -> dict[str, Any]:
    first, second = (getattr(card, name) for card in cards)
    return {
        "first": list(first) if isinstance(first, tuple) else first,
        "second": list(second) if isinstance(second, tuple) else second,
    }


def _pairs(section: str, first: dict[str, Any], second: dict[str, Any]) -> list[Row]:
    names = [*first, *(name for name in second if name not in first)]
    return [
        Row(section=section, name=name, first=first.get(name), second=second.get(name))
        for name in names
    ]


def _data_rows(first: dict[str, UsedFilm] | None, second: dict[str, UsedFilm] | None) -> list[Row]:
    counted = _counted(first), _counted(second)
    names = sorted({*counted[0], *counted[1]})
    return [
        Row(section="data", name=name, first=counted[0].get(name), second=counted[1].get(name))
        for name in names
    ]


def _counted(films: dict[str, UsedFilm] | None) -> dict[str, int]:
    """Films by part and by label."""
    counts: dict[str, int] = {}
    for film in (films or {}).values():
        for name in ("films", f"part {film.part}", f"label {film.label}"):
            counts[name] = counts.get(name, 0) + 1
    return counts


def _changes(
    first: dict[str, UsedFilm] | None, second: dict[str, UsedFilm] | None
) -> dict[str, int] | None:
    if first is None or second is None:
        return None
    shared = first.keys() & second.keys()
    return {
        "added": len(second.keys() - first.keys()),
        "removed": len(first.keys() - second.keys()),
        "relabelled": sum(first[key].label != second[key].label for key in shared),
        "moved": sum(first[key].part != second[key].part for key in shared),
        "kept": len(shared),
    }
