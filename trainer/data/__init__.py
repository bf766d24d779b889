"""Training data: which films there are, whose they are, their parts and their tensors.

Films come from a folder per class, from a `manifest.csv`, or (`data.store`) from the node's
own store; JPEG, PNG or DICOM. They are decoded, judged and prepared by `dicomnode.imaging`,
the very code that the node runs: a DICOM file that the node would not evaluate is not
trained on either.

=============  ==============================================================
`cases`        what is known of a film before it is opened; the limits
`folders`      a folder per class; what the header of a DICOM file says
`manifest`     a manifest as CSV, read line by line; snapshots
`films`        decoded and prepared, in memory or in a memory-mapped file
`split`        training, validation and test: by patient, stratified, seeded
`store`        the films of the node that have a label
=============  ==============================================================

Nothing here writes into the data, and no message names a patient.
"""

from __future__ import annotations

from pathlib import Path

from trainer.data import folders, manifest
from trainer.data.cases import Case, Skipped
from trainer.data.films import (
    Films,
    UnusableFilm,
    content,
    decoded,
    in_order,
    load,
    prepared_tensor,
)
from trainer.data.manifest import write_snapshot
from trainer.data.split import Split, drop_skipped, held_out, require_classes, split
from trainer.errors import DataError

__all__ = [
    "Case",
    "Films",
    "Skipped",
    "Split",
    "UnusableFilm",
    "content",
    "decoded",
    "drop_skipped",
    "held_out",
    "in_order",
    "load",
    "prepared_tensor",
    "read_cases",
    "require_classes",
    "split",
    "write_snapshot",
]


def read_cases(location: Path, *, require_files: bool = True) -> tuple[Case, ...]:
    """The films of a training folder or of a manifest, ordered by name.

    `location` is a folder with a `manifest.csv`, else a folder with one folder per class, or
    the file of a manifest. With `require_files` a manifest that names a missing file is
    refused; without, `load` lists it as skipped. Raises `DataError`.
    """
    listed = location if location.is_file() else location / manifest.FILE_NAME
    if listed.is_file():
        found = manifest.read(listed, require_files=require_files)
    elif location.is_dir():
        found = folders.read(location)
    else:
        raise DataError(
            f"{location} is not there; expected a folder per class, or a manifest "
            f"({manifest.FILE_NAME})"
        )
    cases = tuple(sorted(found, key=lambda case: case.name))
    if len({case.label for case in cases}) < 2:
        labels = ", ".join(sorted({case.label for case in cases})) or "none"
        raise DataError(
            f"{location} has films of fewer than two classes (found: {labels}); "
            "expected a folder per class or a manifest.csv with filename and label"
        )
    return cases
