"""The node's store as training data: its images that have a label.

Reads beside a running node, and beside several on PostgreSQL: nothing is locked, nothing
is changed. Of each image the header is read once and no pixel data: about 1.2 ms of
processor time, so some two minutes for a hundred thousand images, in flat memory.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from pydicom.dataset import Dataset

from dicomnode.config import StorageSettings
from dicomnode.errors import NotAnInstance, NotInStore
from dicomnode.findings import Reason
from dicomnode.imaging import gate
from dicomnode.imaging.elements import text
from dicomnode.storage import Storage, open_storage
from dicomnode.storage.labelled import LabelledInstance
from dicomnode.storage.owner import check_identity
from trainer.data import manifest
from trainer.data.cases import Case, Skipped
from trainer.data.films import in_order
from trainer.data.folders import facts_of
from trainer.errors import DataError
from trainer.spelling import plain

SNAPSHOT_COLUMNS: Final = (
    *manifest.SNAPSHOT_COLUMNS,
    "label_source",
    "label_author",
    "labelled_at",
)

_BY_ITS_PIXELS: Final = {
    Reason.CONTRAST,
    Reason.APPEARANCE,
    Reason.SECONDARY_CAPTURE,
    Reason.NO_PIXELS,
    Reason.UNDECODABLE,
}
"""Refusals of the node that a header alone cannot repeat; undecodable pixel data was met in
a child process with bounds, and is not given to the trainer's own process."""

_MAKER: Final = re.compile(r"[\w .,+/()-]{1,64}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class StoredCase(Case):
    """A labelled image of the store. `name` is its SOP Instance UID, `patient` a keyed hash."""

    label_source: str
    label_author: str
    labelled_at: datetime


@dataclass(frozen=True, kw_only=True)
class StoredFilms:
    """What the store has for training."""

    cases: tuple[StoredCase, ...]
    """Ordered by SOP Instance UID."""
    skipped: tuple[Skipped, ...]
    """Images with a label that are not for the model, with the reason."""


def store_cases(settings: StorageSettings) -> tuple[StoredCase, ...]:
    """The labelled images of the store that the model may judge; see `stored_films`."""
    return stored_films(settings).cases


def stored_films(
    settings: StorageSettings, *, progress: Callable[[int], None] | None = None
) -> StoredFilms:
    """Every image with a label, parted by the gate of the node (`dicomnode.imaging.gate`).

    The label is the image's own, else its study's. Left out, with the reason: what the gate
    or the node refuses, the node's own products, files that cannot be read, and SOP
    Instance UIDs that came with two contents. `source` is the calling AE title and the
    device's model (or maker), `view` is View Position.

    `patient` is a hash of the Patient ID, keyed by the store, so that it stays the same from
    month to month and says nothing elsewhere. The issuer is left out on purpose: a device
    that does not write it must not put a patient into two parts. Images without a Patient
    ID count as one patient per study.

    Raises `DataError` when there is no store, `ConfigError`, `StorageUnavailable`.
    """
    if not settings.root.is_dir():
        raise DataError(
            f"there is no store at {settings.root}; expected storage.root of the node's settings"
        )
    storage = open_storage(settings)
    try:
        reader = _Reader(storage)
        cases: list[StoredCase] = []
        skipped: list[Skipped] = []
        for number, found in enumerate(storage.labels.labelled_instances(), start=1):
            case = reader.case(found)
            if isinstance(case, StoredCase):
                cases.append(case)
            else:
                skipped.append(Skipped(name=found.instance.sop_instance_uid, reason=case))
            if progress is not None:
                progress(number)
    finally:
        storage.close()
    return StoredFilms(
        cases=tuple(sorted(cases, key=lambda case: case.name)), skipped=tuple(skipped)
    )


def snapshot(
    cases: Sequence[Case], path: Path, *, previous: Path | None = None, workers: int = 2
) -> Path:
    """Write a manifest with absolute paths to `path`, which `trainer.data.read_cases` takes.

    One line per case: path, label with source, author and time where they are known, the
    patient as a hash, and the SHA-256 of the file, for which every file is read once. Of
    files that the snapshot `previous` names it is taken from there: the store never changes
    a file. Only the owner may read the manifest, and it is there as a whole or not at all.
    Raises `DataError`.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}")
    known = _digests(previous) if previous is not None else {}
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with manifest.private_file(part) as stream:
                rows = csv.writer(stream, lineterminator="\n")
                rows.writerow(SNAPSHOT_COLUMNS)
                rows.writerows(_rows(cases, known, workers))
                stream.flush()
                os.fsync(stream.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror}") from error
    return path


class _Reader:
    """From a labelled instance to a case."""

    def __init__(self, storage: Storage) -> None:
        self._files = storage.files
        self._key = check_identity(storage.files.root, storage.database).store_id.encode()

    def case(self, found: LabelledInstance) -> StoredCase | str:
        """The case, or why it is none."""
        instance, label = found.instance, found.label
        if found.came_twice:
            return "its SOP Instance UID came with two contents"
        if found.refusal in _BY_ITS_PIXELS:
            return f"the node refused it: {found.refusal.value}"
        try:
            ds = self._files.read_header(instance.path)
        except (NotAnInstance, NotInStore) as error:
            return str(error)
        refusal = gate.judge_header(ds)
        if refusal is not None:
            return refusal.detail
        facts = facts_of(ds)
        return StoredCase(
            path=self._files.absolute(instance.path).absolute(),
            name=instance.sop_instance_uid,
            label=plain(label.label),
            patient=self._patient(facts.patient, instance.study_instance_uid),
            source=" / ".join(
                filter(None, (instance.calling_ae_title, facts.source or _maker(ds)))
            ),
            view=facts.view,
            sop_instance_uid=instance.sop_instance_uid,
            study_instance_uid=instance.study_instance_uid,
            label_source=label.source,
            label_author=label.author,
            labelled_at=label.labelled_at,
        )

    def _patient(self, patient_id: str, study_instance_uid: str) -> str:
        whose = f"patient {patient_id.casefold()}" if patient_id else f"study {study_instance_uid}"
        said = whose.encode(errors="backslashreplace")  # a broken character set leaves surrogates
        return hashlib.blake2b(said, key=self._key, digest_size=16).hexdigest()


def _maker(ds: Dataset) -> str:
    maker = text(ds, "Manufacturer")
    return maker if _MAKER.fullmatch(maker) else ""


def _rows(
    cases: Sequence[Case], known: Mapping[str, str], workers: int
) -> Iterator[tuple[str, ...]]:
    def digest_of(case: Case) -> str:
        held = known.get(str(case.path)) if isinstance(case, StoredCase) else None
        return held or _sha256(case)

    for case, digest in in_order(digest_of, cases, workers):
        stored = case if isinstance(case, StoredCase) else None
        yield (
            case.name,
            str(case.path.absolute()),
            case.label,
            case.patient if stored else _hashed(case.patient),
            case.source,
            case.view,
            case.sop_instance_uid,
            case.study_instance_uid,
            digest,
            *(_said(stored) if stored else ("", "", "")),
        )


def _hashed(patient: str) -> str:
    """Without a key: where it comes from, the identifier itself lies beside the films."""
    return hashlib.sha256(patient.encode(errors="backslashreplace")).hexdigest()


def _said(case: StoredCase) -> tuple[str, str, str]:
    return case.label_source, case.label_author, case.labelled_at.isoformat()


def _sha256(case: Case) -> str:
    try:
        with case.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"cannot read {case.name}: {error.strerror}") from error


def _digests(snapshot_path: Path) -> dict[str, str]:
    try:
        with snapshot_path.open(newline="", encoding="utf-8") as stream:
            return {row["path"]: row["sha256"] for row in csv.DictReader(stream)}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError) as error:
        raise DataError(
            f"{snapshot_path} is no snapshot ({type(error).__name__}); leave it out"
        ) from error
