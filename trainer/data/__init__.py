"""Training data: which films there are, whose they are, and their tensors.

A training folder holds one folder per class, or a manifest.csv with at least the columns
`filename` and `label` (and, used when present, `patient_id`, `dataset`, `view`). Films are
JPEG, PNG or DICOM, and go through the preprocess profile of `dicomnode.imaging`, the very
code that the node runs.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dicomnode.errors import NotAnInstance, UndecodableImage
from dicomnode.imaging import pixels, preprocess, reading
from trainer.errors import DataError

MAXIMUM_PIXELS: Final = 100_000_000
_IMAGE_FILES: Final = (".png", ".jpg", ".jpeg")
_DICOM_FILES: Final = (".dcm", ".dicom", "")

Tensors = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One labelled film."""

    path: Path
    name: str
    """Relative to the training folder."""
    label: str
    patient: str
    """Whom a film belongs to decides which part it goes to; it is never printed."""
    source: str = ""
    view: str = ""


@dataclass(frozen=True, kw_only=True)
class Films:
    """Films in memory: `tensors` is uint8 [N, height, width, 3], in the order of `cases`."""

    cases: tuple[Case, ...]
    tensors: Tensors
    manifest_sha256: str
    """Of every film's name, label, patient and content."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Indices of the films in each part; no patient is in two parts."""

    training: NDArray[np.intp]
    validation: NDArray[np.intp]
    test: NDArray[np.intp]


def read_cases(folder: Path) -> tuple[Case, ...]:
    """The films of a training folder, ordered by name. Raises `DataError`."""
    manifest = folder / "manifest.csv"
    found = _from_manifest(manifest) if manifest.is_file() else _from_folders(folder)
    cases = tuple(sorted(found, key=lambda case: case.name))
    if len({case.label for case in cases}) < 2:
        labels = ", ".join(sorted({case.label for case in cases})) or "none"
        raise DataError(
            f"{folder} has films of fewer than two classes (found: {labels}); "
            "expected a folder per class or a manifest.csv with filename and label"
        )
    return cases


def load(
    cases: Sequence[Case],
    profile_name: str,
    *,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Films:
    """Decode and preprocess every film. Raises `DataError` that names the first bad file."""
    profile = preprocess.profile_named(profile_name)
    tensors = np.empty((len(cases), *profile.shape), dtype=np.uint8)
    manifest = hashlib.sha256()

    def prepared(case: Case) -> tuple[Tensors, str]:
        try:
            data = case.path.read_bytes()
        except OSError as error:
            raise DataError(f"cannot read {case.name}: {error.strerror}") from error
        return profile.apply(_grey(case, data)), hashlib.sha256(data).hexdigest()

    # numpy, Pillow and the codecs let go of the interpreter lock while they work
    with ThreadPoolExecutor(workers, thread_name_prefix="film") as pool:
        for index, (tensor, digest) in enumerate(pool.map(prepared, cases)):
            case = cases[index]
            tensors[index] = tensor
            line = "\t".join((case.name, case.label, case.patient, digest))
            manifest.update(line.encode() + b"\n")
            if progress is not None:
                progress(index + 1, len(cases))
    return Films(cases=tuple(cases), tensors=tensors, manifest_sha256=manifest.hexdigest())


def prepared_tensor(grey: NDArray[np.uint8], profile_name: str) -> Tensors:
    """uint8 [rows, columns] to the model's input, uint8 [height, width, 3]."""
    return preprocess.profile_named(profile_name).apply(grey)


def split(
    cases: Sequence[Case], *, test_fraction: float, validation_fraction: float, seed: int
) -> Split:
    """Part the films by patient, stratified by label, reproducibly.

    Patients are grouped by the set of labels that their films have, so that somebody with
    a film on both sides is in one part only. Of each group `test_fraction` go to the test
    part, and `validation_fraction` of the rest to the validation part.
    """
    films_of: dict[str, list[int]] = defaultdict(list)
    for index, case in enumerate(cases):
        films_of[case.patient].append(index)
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
    _require_all_labels(cases, parts)
    ordered = {part: np.array(sorted(films), dtype=np.intp) for part, films in parts.items()}
    return Split(**ordered)


def _require_all_labels(cases: Sequence[Case], parts: dict[str, list[int]]) -> None:
    labels = {case.label for case in cases}
    for part, films in parts.items():
        missing = sorted(labels - {cases[index].label for index in films})
        if missing:
            raise DataError(
                f"the {part} part would hold no film of class {missing[0]!r}: "
                f"{len({case.patient for case in cases})} patients are too few to part; "
                "add patients"
            )


# ---------------------------------------------------------------------------- where from


def _from_manifest(manifest: Path) -> Iterator[Case]:
    folder = manifest.parent.resolve()
    with manifest.open(newline="", encoding="utf-8") as stream:
        rows = csv.DictReader(stream)
        missing = {"filename", "label"} - set(rows.fieldnames or ())
        if missing:
            raise DataError(f"{manifest} has no column {', '.join(sorted(missing))}")
        for line, row in enumerate(rows, start=2):
            name, label = row["filename"], row["label"]
            path = (folder / (name or "")).resolve()
            if not name or not label or not path.is_relative_to(folder):
                raise DataError(
                    f"{manifest} line {line}: expected a label and a filename inside the folder"
                )
            if not path.is_file():
                raise DataError(f"{manifest} line {line}: there is no file {name}")
            yield Case(
                path=path,
                name=name,
                label=label,
                patient=row.get("patient_id") or name,
                source=row.get("dataset") or "",
                view=row.get("view") or "",
            )


def _from_folders(folder: Path) -> Iterator[Case]:
    for path in folder.glob("[!.]*/**/*"):
        if not path.is_file() or path.name.startswith("."):
            continue
        suffix = path.suffix.lower()
        if suffix not in _IMAGE_FILES and suffix not in _DICOM_FILES:
            continue
        name = path.relative_to(folder)
        patient = str(name) if suffix in _IMAGE_FILES else _patient(path, str(name))
        yield Case(path=path, name=str(name), label=name.parts[0], patient=patient)


def _patient(path: Path, name: str) -> str:
    """Whose film a DICOM file is; the file's own name when it does not say."""
    with path.open("rb") as stream:
        try:
            ds = reading.read_instance(stream)
        except NotAnInstance as error:
            raise DataError(f"{name} cannot be read: {error}") from error
    return str(ds.get("PatientID") or name)


def _grey(case: Case, data: bytes) -> NDArray[np.uint8]:
    try:
        if case.path.suffix.lower() in _IMAGE_FILES:
            return preprocess.image_file_grey8(data, maximum_pixels=MAXIMUM_PIXELS)
        ds = reading.read_instance(io.BytesIO(data))
        return pixels.grey8(ds, maximum_pixels=MAXIMUM_PIXELS)
    except (UndecodableImage, NotAnInstance) as error:
        raise DataError(f"{case.name} cannot be used: {error}") from error
