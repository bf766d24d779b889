"""A folder per class. DICOM files say for themselves whose they are, other films cannot."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydicom.dataset import Dataset

from dicomnode.errors import NotAnInstance
from dicomnode.imaging import elements, reading
from trainer.data.cases import (
    DICOM_SUFFIXES,
    IMAGE_SUFFIXES,
    MAXIMUM_FILE_BYTES,
    MAXIMUM_FILMS,
    Case,
)
from trainer.errors import DataError
from trainer.spelling import plain

_DEVICE: Final = re.compile(r"[\w .,+/()-]{1,64}", re.ASCII)
_CODE: Final = re.compile(r"[A-Z0-9_ ]{1,16}")


@dataclass(frozen=True, kw_only=True)
class HeaderFacts:
    """What a DICOM header says that decides where a film belongs; empty where it is silent."""

    patient: str = ""
    source: str = ""
    """Manufacturer's model name: the device, not the institution."""
    view: str = ""
    sop_instance_uid: str = ""
    study_instance_uid: str = ""


def read(folder: Path) -> Iterator[Case]:
    """The films below the folders of `folder`, whose names are the classes, in no order.

    Hidden files and folders, and files of other types, are not films. A film without a
    patient of its own in its header counts as a patient. Raises `DataError`.
    """
    found = 0
    for path in folder.glob("[!.]*/**/*"):
        name = path.relative_to(folder)
        if not _is_film(path, name):
            continue
        found += 1
        if found > MAXIMUM_FILMS:
            raise DataError(
                f"{folder} holds more than {MAXIMUM_FILMS:,} films; is it the training folder? "
                "Part it, or list the films in a manifest.csv"
            )
        _require_utf8(name)
        facts = HeaderFacts() if path.suffix.lower() in IMAGE_SUFFIXES else header_facts(path)
        yield Case(
            path=path,
            name=str(name),
            label=plain(name.parts[0]),
            patient=facts.patient or str(name),
            source=facts.source,
            view=facts.view,
            sop_instance_uid=facts.sop_instance_uid,
            study_instance_uid=facts.study_instance_uid,
        )


def header_facts(path: Path) -> HeaderFacts:
    """Of a file that cannot be read as DICOM: nothing, for `films.load` will say why."""
    try:
        if path.stat().st_size > MAXIMUM_FILE_BYTES:
            return HeaderFacts()
        with path.open("rb") as stream:
            return facts_of(reading.read_instance(stream))
    except (OSError, NotAnInstance):
        return HeaderFacts()


def facts_of(ds: Dataset) -> HeaderFacts:
    """Values that are no code strings or device names are left out: they could name somebody."""
    device = elements.text(ds, "ManufacturerModelName")
    view = elements.text(ds, "ViewPosition").upper()
    return HeaderFacts(
        patient=plain(elements.text(ds, "PatientID")),
        source=device if _DEVICE.fullmatch(device) else "",
        view=view if _CODE.fullmatch(view) else "",
        sop_instance_uid=elements.text(ds, "SOPInstanceUID"),
        study_instance_uid=elements.text(ds, "StudyInstanceUID"),
    )


def _is_film(path: Path, name: Path) -> bool:
    suffix = path.suffix.lower()
    return (
        (suffix in IMAGE_SUFFIXES or suffix in DICOM_SUFFIXES)
        and not any(part.startswith(".") for part in name.parts)
        and path.name != "DICOMDIR"
        and path.is_file()
    )


def _require_utf8(name: Path) -> None:
    """Lists of films are UTF-8: a film that cannot be named there cannot be told of."""
    try:
        str(name).encode()
    except UnicodeEncodeError as error:
        told = str(name).encode(errors="surrogateescape").decode(errors="backslashreplace")
        raise DataError(
            f"the file name {told} is not UTF-8; rename it, for instance all at once with "
            "`convmv -r -f latin1 -t utf8 --notest DIR`"
        ) from error
