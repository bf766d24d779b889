"""From the keys of a file of labels to studies and images of the store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Connection, select

from dicomnode.storage.labelfile import LabelLine
from dicomnode.storage.schema import instances, studies

_CHUNK: Final = 500

Target = tuple[str, int | None]
"""Study Instance UID and the instance's id, or None for the whole study."""


class Known:
    """What the store holds of the keys in a file, asked in a few statements."""

    def __init__(self, connection: Connection, lines: Sequence[LabelLine]) -> None:
        self.images = {
            row["sop_instance_uid"]: row
            for uids in chunks({line.sop_instance_uid for line in lines})
            for row in connection.execute(
                select(
                    instances.c.sop_instance_uid, instances.c.id, instances.c.study_instance_uid
                ).where(instances.c.sop_instance_uid.in_(uids), instances.c.own_product.is_(False))
            ).mappings()
        }
        uids = {line.study_instance_uid for line in lines}
        uids |= {row["study_instance_uid"] for row in self.images.values()}
        self.studies: dict[str, Any] = {}
        self.accessions: dict[str, list[str]] = {}
        for chunk in chunks(uids):
            self._note(connection, studies.c.study_instance_uid.in_(chunk))
        for chunk in chunks({line.accession_number for line in lines}):
            self._note(connection, studies.c.accession_number.in_(chunk))
        for uid, row in self.studies.items():
            self.accessions.setdefault(row["accession_number"].strip(), []).append(uid)

    def _note(self, connection: Connection, condition: Any) -> None:
        statement = select(
            studies.c.study_instance_uid, studies.c.accession_number, studies.c.patient_id
        )
        for row in connection.execute(statement.where(condition)).mappings():
            self.studies[row["study_instance_uid"]] = row

    def target(self, line: LabelLine) -> Target | str | None:
        """What a line is about; None when it is not held, a sentence when it cannot be."""
        candidates: set[str] | None = None
        image = None
        if line.sop_instance_uid:
            image = self.images.get(line.sop_instance_uid)
            candidates = {image["study_instance_uid"]} if image is not None else set()
        if line.study_instance_uid:
            held = {line.study_instance_uid} & self.studies.keys()
            if candidates and not candidates & held:
                return "the image is in another study than study_instance_uid says"
            candidates = held if candidates is None else candidates & held
        if line.accession_number:
            held = set(self.accessions.get(line.accession_number, ()))
            if candidates and held and not candidates & held:
                return "accession_number belongs to another study"
            candidates = held if candidates is None else candidates & held
        if not candidates:
            return None
        if line.patient_id:
            of_patient = {
                uid
                for uid in candidates
                if self.studies[uid]["patient_id"].strip() == line.patient_id
            }
            if not of_patient:
                return "patient_id is not that of the study in the store"
            candidates = of_patient
        if len(candidates) > 1:
            return f"accession_number names {len(candidates)} studies; give study_instance_uid" + (
                "" if line.patient_id else " or patient_id"
            )
        return candidates.pop(), image["id"] if image is not None else None


def chunks(values: Iterable[str]) -> Iterator[list[str]]:
    """What is not empty, in parts that one statement takes."""
    ordered = sorted(value for value in values if value)
    for start in range(0, len(ordered), _CHUNK):
        yield ordered[start : start + _CHUNK]
