"""The report: Comprehensive 3D SR (PS3.3 A.35.13) with TID 1500 as its root."""

from __future__ import annotations

from typing import Any

from highdicom import sr
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from dicomnode.sr.content import SERIES_DESCRIPTION, Moment, Predecessor, ReportContent
from dicomnode.sr.equipment import set_equipment, set_file_meta
from dicomnode.sr.identity import ImageReference, StudyIdentity, read_identity, read_image
from dicomnode.sr.tree import measurement_report


def build_report(content: ReportContent) -> Dataset:
    """The report as a data set with file meta information (Explicit VR Little Endian).

    The same content gives the same bytes. Raises `ReportUnbuildable` when the headers
    cannot be carried into a valid document of one patient, and `ModelCardMissing` when
    the card of a version that answered is not in `content.cards`.
    """
    identity = read_identity(content.headers, study_instance_uid=content.study_instance_uid)
    images = [
        read_image(header, study_instance_uid=content.study_instance_uid)
        for header in content.headers
    ]
    moment = Moment.of(content.content_time, zone=content.timezone, offset=identity.timezone_offset)
    tree = measurement_report(content, images)
    report = _Document(
        evidence=[_evidence(image) for image in images],
        content=tree,
        series_instance_uid=content.series_instance_uid,
        series_number=content.series_number,
        sop_instance_uid=content.sop_instance_uid,
        instance_number=content.instance_number,
        manufacturer=content.manufacturer,
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description=SERIES_DESCRIPTION,
        content_date=moment.date,
        content_time=moment.time,
        series_date=moment.date,
        series_time=moment.time,
        previous_versions=_previous(content.predecessor),
        requested_procedures=identity.referenced_requests() or None,
    )
    _set_facts(report, content, identity, moment)
    return report


class _Document(sr.Comprehensive3DSR):
    """highdicom's document with an identity of our own reading."""

    def copy_patient_and_study_information(self, dataset: Dataset) -> None:
        """Nothing: `StudyIdentity.write_to` follows. highdicom would copy whole modules
        as they came, and knows no private SOP Classes."""


def _set_facts(
    report: Any, content: ReportContent, identity: StudyIdentity, moment: Moment
) -> None:
    identity.write_to(report)
    report.InstanceCreationDate = moment.date
    report.InstanceCreationTime = moment.time
    report.InstanceCreatorUID = content.node_device_uid
    cards = content.answering_cards()
    set_equipment(
        report,
        cards=cards,
        model_name=cards[0].model_name if cards else content.model_name,
        software_version=content.software_version,
        manufacturer=content.manufacturer,
        station=content.station,
        institution=content.institution,
        moment=moment,
    )
    set_file_meta(report, software_version=content.software_version)


def _evidence(image: ImageReference) -> Dataset:
    """What highdicom needs of an image: its UIDs, and an identity to be overwritten."""
    item = Dataset()
    item.StudyInstanceUID = image.study_instance_uid
    item.SeriesInstanceUID = image.series_instance_uid
    item.SOPInstanceUID = image.sop_instance_uid
    item.SOPClassUID = image.sop_class_uid
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex"):
        setattr(item, keyword, "")
    for keyword in ("AccessionNumber", "StudyID", "StudyDate", "StudyTime"):
        setattr(item, keyword, "")
    item.ReferringPhysicianName = ""
    return item


def _previous(predecessor: Predecessor | None) -> list[Dataset] | None:
    if predecessor is None:
        return None
    item = Dataset()
    item.StudyInstanceUID, item.SeriesInstanceUID, item.SOPInstanceUID = predecessor
    item.SOPClassUID = Comprehensive3DSRStorage
    return [item]
