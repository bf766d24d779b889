"""The films and labels of one run, fixed: a list with digests, read again by all workers."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trainer import data, registry
from trainer.data import store
from trainer.errors import DataError
from trainer.retrain import runs
from trainer.retrain.settings import RetrainSettings

Labels = Mapping[str, str]
"""Label by sha256 of the film's bytes; of copies that of the first, as `data.load` has it."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What a run works on."""

    cases: tuple[data.Case, ...]
    labels: Labels

    @property
    def sha256(self) -> str:
        """Of digests and labels, whatever the films are called and wherever they lie."""
        lines = "".join(f"{digest}\t{self.labels[digest]}\n" for digest in sorted(self.labels))
        return hashlib.sha256(lines.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Found:
    """The labelled films that there are now, and those that are not for the model."""

    cases: tuple[data.Case, ...]
    skipped: tuple[data.Skipped, ...] = ()


def look(settings: RetrainSettings) -> Found:
    """What a run would start from. Raises `DataError`."""
    if settings.storage is None:
        assert settings.location is not None
        cases = data.read_cases(settings.location)
        return Found(cases=tuple(replace(case, patient=_hashed(case.patient)) for case in cases))
    stored = store.stored_films(settings.storage)
    if not stored.cases:
        left_out = f", and {len(stored.skipped)} that are not for the model"
        raise DataError(
            f"the store at {settings.storage.root} holds no labelled film"
            f"{left_out if stored.skipped else ''}; `dicomnode labels import` brings labels in"
        )
    return Found(cases=stored.cases, skipped=stored.skipped)


def take(settings: RetrainSettings, path: Path) -> Snapshot:
    """List the films with their digests in `path`, for `read`. Raises `DataError`.

    What the last run's snapshot knows of the store's files is not read again.
    """
    cases = look(settings).cases
    if settings.storage is not None:
        store.snapshot(cases, path, previous=runs.last_snapshot(settings.run.runs))
    else:
        data.write_snapshot(path, cases, [_digest(case) for case in cases])
    return read(path)


def read(path: Path) -> Snapshot:
    """A snapshot as it was taken. Raises `DataError`."""
    return Snapshot(cases=data.read_cases(path), labels=dict(reversed(list(_labels(path)))))


def labels_of(cases: Sequence[data.Case]) -> Labels:
    """Digests now, without a snapshot. Raises `DataError`."""
    return {_digest(case): case.label for case in reversed(cases)}


def changes(labels: Labels, base: Path) -> int | None:
    """How many films are new, gone or relabelled since the newest version; None when there
    is no version, or it does not say what it was made from. Raises `RegistryError`."""
    newest = max(registry.versions(base), default=None)
    used = registry.used_films(base / str(newest)) if newest is not None else None
    if used is None:
        return None
    before = {digest: film.label for digest, film in used.items()}
    return sum(before.get(digest) != labels.get(digest) for digest in {*before, *labels})


def _labels(path: Path) -> Iterator[tuple[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            yield row["sha256"], row["label"]


def _hashed(patient: str) -> str:
    """The same in every run: whose film it is decides which part it goes to."""
    return hashlib.sha256(patient.encode()).hexdigest()


def _digest(case: data.Case) -> str:
    try:
        with case.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {case.name}: {error.strerror}") from error
