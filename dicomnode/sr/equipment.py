"""Who made a document: equipment modules shared by report and heatmap.

IHE AI Results asks for every algorithm in Contributing Equipment Sequence, with a
Device UID that is new after every retraining.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from dicomnode.modelcard import ModelCard
from dicomnode.sr.content import (
    IMPLEMENTATION_CLASS_UID,
    MANUFACTURER,
    Moment,
    node_device_uid,
)
from dicomnode.sr.values import fitted

_PROCESSING_EQUIPMENT = ("109102", "DCM", "Processing Equipment")


def set_equipment(
    dataset: Dataset,
    *,
    cards: Sequence[ModelCard],
    model_name: str,
    software_version: str,
    manufacturer: str,
    station: str,
    institution: str | None,
    moment: Moment,
) -> None:
    """General and Enhanced General Equipment (PS3.3 C.7.5.1, C.7.5.2), Contributing
    Equipment (C.12.1). `cards` are those of the versions that answered, newest first."""
    dataset.Manufacturer = fitted(manufacturer, 64)
    dataset.ManufacturerModelName = fitted(model_name, 64) or MANUFACTURER
    dataset.StationName = fitted(station, 16)
    dataset.DeviceSerialNumber = fitted(station, 64) or MANUFACTURER
    dataset.DeviceUID = cards[0].device_uid if cards else node_device_uid(software_version)
    dataset.SoftwareVersions = [
        fitted(f"{MANUFACTURER} {software_version}", 64),
        *(fitted(f"{card.model_name} {card.model_version}", 64) for card in cards),
    ]
    if institution:
        dataset.InstitutionName = fitted(institution, 64)
    dataset.ContributingEquipmentSequence = [
        *(
            _contribution(
                manufacturer=card.manufacturer,
                model_name=card.model_name,
                version=str(card.model_version),
                device_uid=card.device_uid,
                description="Classified the image; " + card.intended_use,
                moment=moment,
            )
            for card in cards
        ),
        _contribution(
            manufacturer=manufacturer,
            model_name=MANUFACTURER,
            version=software_version,
            device_uid=node_device_uid(software_version),
            description="Selected and prepared the images, and wrote this document",
            moment=moment,
        ),
    ]


def set_file_meta(dataset: Dataset, *, software_version: str) -> None:
    """File Meta Information (PS3.10 7.1) in Explicit VR Little Endian."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = fitted(f"DICOMNODE_{software_version}", 64)[:16]
    dataset.file_meta = meta


def to_bytes(dataset: Dataset) -> bytes:
    """A Part 10 file; the same data set gives the same bytes."""
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def code_item(value: str, scheme_designator: str, meaning: str) -> Dataset:
    """An item of a code sequence (PS3.3 section 8)."""
    item = Dataset()
    item.CodeValue = value
    item.CodingSchemeDesignator = scheme_designator
    item.CodeMeaning = meaning
    return item


def _contribution(
    *,
    manufacturer: str,
    model_name: str,
    version: str,
    device_uid: str,
    description: str,
    moment: Moment,
) -> Dataset:
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [code_item(*_PROCESSING_EQUIPMENT)]
    item.Manufacturer = fitted(manufacturer, 64)
    item.ManufacturerModelName = fitted(model_name, 64)
    item.SoftwareVersions = fitted(version, 64)
    item.DeviceUID = device_uid
    item.ContributionDateTime = moment.date_time
    item.ContributionDescription = fitted(description, 1024)
    return item
