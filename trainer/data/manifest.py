"""A training set as CSV: one line per film.

==========================================  =====================================================
Column                                      Meaning
==========================================  =====================================================
`filename` (must be)                        relative to the manifest's folder, never out of it
`label` (must be)                           the class
`patient_id`                                else the DICOM header's, else the film is a patient
`dataset`, `view`                           source and view, for the tables per source and view
`sop_instance_uid`, `study_instance_uid`    of films from a PACS
`sha256`                                    of the file's bytes; other bytes are another film
`path`                                      absolute: makes the manifest a *snapshot*, whose films
                                            may lie anywhere and may be gone when it is read;
                                            `filename` is then only the film's name
==========================================  =====================================================

Other columns are kept by nobody and disturb nobody. The file is UTF-8, with commas.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, TextIO

from trainer.data.cases import IMAGE_SUFFIXES, MAXIMUM_FILMS, Case
from trainer.data.folders import HeaderFacts, header_facts
from trainer.errors import DataError
from trainer.spelling import plain

FILE_NAME: Final = "manifest.csv"
SNAPSHOT_COLUMNS: Final = (
    "filename",
    "path",
    "label",
    "patient_id",
    "dataset",
    "view",
    "sop_instance_uid",
    "study_instance_uid",
    "sha256",
)


def read(manifest: Path, *, require_files: bool = True) -> Iterator[Case]:
    """The films of a manifest, in its order, line by line.

    Raises `DataError` that names the line: a column or value is missing, a file lies outside
    the folder or (with `require_files`, and not in a snapshot) is not there, a film is
    listed twice, there are more than `MAXIMUM_FILMS`, or it is no CSV.
    """
    try:
        with manifest.open(newline="", encoding="utf-8-sig") as stream:
            yield from _cases(stream, manifest, require_files=require_files)
    except OSError as error:
        raise DataError(f"cannot read {manifest}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{manifest} is not UTF-8; save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{manifest} is not CSV: {error}") from error


def write_snapshot(path: Path, cases: Sequence[Case], digests: Sequence[str] | None = None) -> None:
    """Write the films as a snapshot manifest that `read` accepts from anywhere.

    `digests` are sha256 in hex of the files' bytes, in the order of `cases`; without, those
    that the cases have. Only the owner can read the file, for it says whose films they are.
    """
    digests = [case.sha256 for case in cases] if digests is None else digests
    with private_file(path) as stream:
        writer = csv.writer(stream)
        writer.writerow(SNAPSHOT_COLUMNS)
        for case, digest in zip(cases, digests, strict=True):
            writer.writerow(
                (
                    case.name,
                    case.path.resolve(),
                    case.label,
                    case.patient,
                    case.source,
                    case.view,
                    case.sop_instance_uid,
                    case.study_instance_uid,
                    digest,
                )
            )


def private_file(path: Path) -> TextIO:
    """A text file, new or emptied, that only its owner may read."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.fchmod(handle, 0o600)
    return os.fdopen(handle, "w", newline="", encoding="utf-8")


def _cases(stream: TextIO, manifest: Path, *, require_files: bool) -> Iterator[Case]:
    rows = csv.DictReader(stream)
    columns = rows.fieldnames or ()
    missing = {"filename", "label"} - set(columns)
    if missing:
        hint = "; it is separated by semicolons, expected commas" if ";" in "".join(columns) else ""
        raise DataError(f"{manifest} has no column {', '.join(sorted(missing))}{hint}")
    folder = manifest.parent.resolve()
    lines: dict[str, int] = {}
    for row in rows:
        line = f"{manifest} line {rows.line_num}"
        name, label = (row["filename"] or "").strip(), plain(row["label"] or "")
        if not name or not label:
            raise DataError(f"{line}: expected a label and a filename inside the folder")
        path = _path(name, row, folder, line)
        if require_files and "path" not in row and not path.is_file():
            raise DataError(f"{line}: there is no file {name}")
        if name in lines:
            raise DataError(f"{line}: {name} is listed before, in line {lines[name]}; keep one")
        lines[name] = rows.line_num
        if len(lines) > MAXIMUM_FILMS:
            raise DataError(f"{manifest} lists more than {MAXIMUM_FILMS:,} films; part it")
        yield _case(name, label, path, row)


def _path(name: str, row: dict[str, str], folder: Path, line: str) -> Path:
    if "path" in row:
        path = Path(row["path"] or "")
        if not path.is_absolute():
            raise DataError(f"{line}: expected an absolute path in the column path")
        return path
    try:
        path = (folder / name).resolve()
    except (ValueError, OSError, RuntimeError) as error:  # a NUL, too long, a loop of links
        raise DataError(f"{line}: the filename cannot be that of a file") from error
    if not path.is_relative_to(folder):
        raise DataError(f"{line}: expected a label and a filename inside the folder")
    return path


def _case(name: str, label: str, path: Path, row: dict[str, str]) -> Case:
    patient = _said(row, "patient_id")
    asked = not patient and path.suffix.lower() not in IMAGE_SUFFIXES
    facts = header_facts(path) if asked else HeaderFacts()
    return Case(
        path=path,
        name=name,
        label=label,
        patient=patient or facts.patient or name,
        source=_said(row, "dataset") or facts.source,
        view=_said(row, "view") or facts.view,
        sop_instance_uid=_said(row, "sop_instance_uid") or facts.sop_instance_uid,
        study_instance_uid=_said(row, "study_instance_uid") or facts.study_instance_uid,
        sha256=_said(row, "sha256").lower(),
    )


def _said(row: dict[str, str], column: str) -> str:
    return plain(row.get(column) or "")
