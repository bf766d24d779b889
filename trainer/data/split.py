"""Training, validation and test part: by patient, with like shares of the labels, seeded."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from trainer.data.cases import Case
from trainer.data.films import Films
from trainer.errors import DataError

Indices = NDArray[np.intp]

MINIMUM_PATIENTS: Final = 3
"""Of a class: one for each part."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Indices of the films in each part, ascending; by patient, nobody is in two parts."""

    training: Indices
    validation: Indices
    test: Indices


def split(
    cases: Sequence[Case],
    *,
    test_fraction: float,
    validation_fraction: float,
    seed: int,
    by: Literal["patient", "image"] = "patient",
) -> Split:
    """Part the films by patient, stratified by label, reproducibly.

    Patients are grouped by the set of labels that their films have, so that somebody with
    a film on both sides is in one part only. Of each group `test_fraction` go to the test
    part, and `validation_fraction` of the rest to the validation part; a fraction of 0
    leaves its part empty. The order of `cases` does not matter. Raises `DataError` when a
    part would lack a label.

    `by="image"` takes every film for a patient of its own. One patient may then be in two
    parts, which flatters the figures; it is there to repeat results that were made so.
    """
    films_of: dict[str, list[int]] = defaultdict(list)
    for index, case in enumerate(cases):
        films_of[case.patient if by == "patient" else case.name].append(index)
    groups: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for patient, films in films_of.items():
        groups[tuple(sorted({cases[index].label for index in films}))].append(patient)

    rng = np.random.default_rng(seed)
    parts: dict[str, list[int]] = {"test": [], "validation": [], "training": []}
    for labels in sorted(groups):
        patients = sorted(groups[labels])
        rng.shuffle(patients)
        first = round(len(patients) * test_fraction)
        second = first + round((len(patients) - first) * validation_fraction)
        for part, chosen in (
            ("test", patients[:first]),
            ("validation", patients[first:second]),
            ("training", patients[second:]),
        ):
            parts[part] += [index for patient in chosen for index in films_of[patient]]
    return _checked(cases, parts, _wanted(test_fraction, validation_fraction))


def held_out(
    cases: Sequence[Case], *, test_fraction: float, validation_fraction: float, seed: int
) -> Split:
    """Part the films by a keyed hash of the patient, for sets that grow.

    A patient stays in the same part however many others come or go, so a film that one
    version was tested on is never in the training part of the next. The shares are those
    asked for only on average. Raises `DataError` when a part would lack a label.
    """
    parts: dict[str, list[int]] = {"test": [], "validation": [], "training": []}
    validation_end = test_fraction + (1 - test_fraction) * validation_fraction
    for index, case in enumerate(cases):
        place = _place(case.patient, seed)
        if place < test_fraction:
            parts["test"].append(index)
        elif place < validation_end:
            parts["validation"].append(index)
        else:
            parts["training"].append(index)
    return _checked(cases, parts, _wanted(test_fraction, validation_fraction))


def drop_skipped(split: Split, cases: Sequence[Case], films: Films) -> Split:
    """The split of `cases` as indices into `films.cases`, without the films that were skipped.

    Films that could not be read do not move the others between parts. Raises `DataError`
    when a part is left without a label, or when `films` were not loaded from `cases`.
    """
    place = {case.name: index for index, case in enumerate(films.cases)}
    if not place.keys() <= {case.name for case in cases}:
        raise DataError("the films were loaded from other cases than the split was made of")
    parts = {
        part: [place[cases[index].name] for index in indices if cases[index].name in place]
        for part, indices in vars(split).items()
    }
    return _checked(films.cases, parts, {part for part, films in vars(split).items() if len(films)})


def require_classes(
    cases: Sequence[Case],
    *,
    positive_class: str | None = None,
    minimum_patients: int = MINIMUM_PATIENTS,
) -> tuple[str, ...]:
    """The classes, sorted. Raises `DataError` with the counts of each class: there is only
    one, the positive class is none of them, or one has too few patients to be parted.
    """
    classes = tuple(sorted({case.label for case in cases}))
    patients = {
        label: len({case.patient for case in cases if case.label == label}) for label in classes
    }
    if len(classes) < 2:
        raise DataError(
            f"expected films of two classes or more, found {_counted(patients) or 'no film'}; "
            "add films of another class"
        )
    if positive_class is not None and positive_class not in classes:
        raise DataError(
            f"no film is of the positive class {positive_class!r}; found {_counted(patients)}; "
            "pass --positive-class"
        )
    few = [label for label in classes if patients[label] < minimum_patients]
    if few:
        raise DataError(
            f"class {few[0]!r} has too few patients to part: found {_counted(patients)}; "
            f"expected at least {minimum_patients} of each"
        )
    return classes


def _place(patient: str, seed: int) -> float:
    """0 <= place < 1, the same for the same patient and seed everywhere."""
    key = seed.to_bytes(16, "big", signed=True)
    digest = hashlib.blake2b(patient.encode(), key=key, digest_size=8, person=b"held-out")
    return int.from_bytes(digest.digest()[:6], "big") / 2**48


def _wanted(test_fraction: float, validation_fraction: float) -> set[str]:
    fractions = {"test": test_fraction, "validation": validation_fraction}
    return {"training"} | {part for part, fraction in fractions.items() if fraction > 0}


def _checked(cases: Sequence[Case], parts: dict[str, list[int]], wanted: set[str]) -> Split:
    labels = {case.label for case in cases}
    for part in ("test", "validation", "training"):
        missing = sorted(labels - {cases[index].label for index in parts[part]})
        if part in wanted and missing:
            raise DataError(
                f"the {part} part would hold no film of class {missing[0]!r}: "
                f"{len({case.patient for case in cases})} patients are too few to part "
                f"({_per_class(cases)}); add patients"
            )
    return Split(**{part: np.array(sorted(films), dtype=np.intp) for part, films in parts.items()})


def _per_class(cases: Sequence[Case]) -> str:
    patients: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        patients[case.label].add(case.patient)
    return _counted({label: len(patients[label]) for label in sorted(patients)})


def _counted(patients: dict[str, int]) -> str:
    return ", ".join(
        f"{label}: {number} {'patient' if number == 1 else 'patients'}"
        for label, number in patients.items()
    )
