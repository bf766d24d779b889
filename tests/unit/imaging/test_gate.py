"""Which images the model may judge."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from dicomnode.findings import NotEvaluated, Reason
from dicomnode.imaging.gate import judge_header, judge_pixels, names_chest
from tests.unit.imaging.datasets import chest_header


def code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


SILENT: dict[str, Any] = {"BodyPartExamined": "", "ViewPosition": ""}


@pytest.mark.parametrize(
    "elements",
    [
        {},
        {"ViewPosition": "AP"},
        {"ViewPosition": ""},
        {"Modality": "DX", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1"},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"},
        {"Modality": "RG"},
        {"ImageType": ["DERIVED", "SECONDARY"]},
        {"BodyPartExamined": "THORAX"},
        {"BodyPartExamined": "TORAX"},
        {**SILENT, "BodyPartExamined": "OTHER", "SeriesDescription": "Tórax de pie"},
        {**SILENT, "SeriesDescription": "Thorax face debout"},
        {**SILENT, "SeriesDescription": "THORAX FACE DECUBITUS DORSAL"},
        {**SILENT, "StudyDescription": "Органы грудной клетки"},
        {**SILENT, "SeriesDescription": "胸部正位"},
        {**SILENT, "StudyDescription": "Röntgen Thorax p.a. und seitlich"},
        {"StudyDescription": "CHEST PA AND LAT"},
        {"StudyDescription": "Trauma: pelvis, knee"},
        {"SeriesDescription": "CHEST PA AND LATERAL"},
        {"PatientSpeciesDescription": "Homo sapiens"},
        {"PatientOrientation": ["L", "F"]},
        {"ResponsiblePerson": "a parent"},
        {**SILENT, "AnatomicRegionSequence": [code("51185008", "SCT", "Brust")]},
        {"ViewCodeSequence": [code("399348003", "SCT", "antero-posterior")]},
        {"BurnedInAnnotation": "YES"},
    ],
)
def test_frontal_chest_radiographs_pass(elements: dict[str, Any]) -> None:
    ds = chest_header(**elements)
    assert judge_header(ds) is None
    assert names_chest(ds)


@pytest.mark.parametrize(
    ("reason", "elements"),
    [
        (Reason.OWN_PRODUCT, {"Manufacturer": "dicomnode"}),
        (Reason.SOP_CLASS, {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}),
        (Reason.SOP_CLASS, {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.34"}),
        (Reason.SOP_CLASS, {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1.1"}),
        (Reason.SOP_CLASS, {"PresentationIntentType": "FOR PROCESSING"}),
        (Reason.MODALITY, {"Modality": "OT"}),
        (Reason.MODALITY, {"Modality": ""}),
        (Reason.SPECIES, {"PatientSpeciesDescription": "Canine"}),
        (Reason.SPECIES, {"PatientSpeciesCodeSequence": [code("448771007", "SCT", "Canis")]}),
        (Reason.SPECIES, {"PatientBreedDescription": "Beagle"}),
        (Reason.SPECIES, {"AcquisitionDeviceProcessingDescription": "FELINE THORAX"}),
        (Reason.LOCALIZER, {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}),
        (
            Reason.SECONDARY_CAPTURE,
            {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "BurnedInAnnotation": "YES"},
        ),
        (
            Reason.SECONDARY_CAPTURE,
            {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "ConversionType": "SYN"},
        ),
        (Reason.BODY_PART, {"BodyPartExamined": "HAND"}),
        (Reason.BODY_PART, {"BodyPartExamined": "B?cken"}),
        (Reason.BODY_PART, {"BodyPartExamined": "CHEST_TO_ABDOMEN"}),
        (Reason.BODY_PART, {"SeriesDescription": "Thoracic spine AP"}),
        (Reason.BODY_PART, {"SeriesDescription": "Brustwirbelsäule a.p."}),
        (Reason.BODY_PART, {**SILENT, "StudyDescription": "Knie links"}),
        (Reason.BODY_PART, {**SILENT, "ProtocolName": "колено"}),
        (Reason.BODY_PART, {"AnatomicRegionSequence": [code("29836001", "SCT", "Hip")]}),
        (Reason.VIEW, {"ViewPosition": "LL"}),
        (Reason.VIEW, {"ViewPosition": "LATERAL"}),
        (Reason.VIEW, {"ViewPosition": "LAO"}),
        (Reason.VIEW, {"ViewPosition": "", "SeriesDescription": "Thorax seitl."}),
        (Reason.VIEW, {"ViewPosition": "", "SeriesDescription": "Thorax profil"}),
        (Reason.VIEW, {"ViewPosition": "", "SeriesDescription": "胸部侧位"}),
        (Reason.VIEW, {"ViewPosition": "AP", "SeriesDescription": "chest ap left decubitus"}),
        (Reason.VIEW, {"ViewPosition": "AP", "SeriesDescription": "AP lordotic"}),
        (Reason.VIEW, {"ViewCodeSequence": [code("399067008", "SCT", "x")]}),
        (Reason.VIEW, {"ViewPosition": "", "PatientOrientation": ["A", "F"]}),
        (Reason.PIXEL_SIZE, {"Rows": 199}),
        (Reason.PIXEL_SIZE, {"Rows": 3000, "Columns": 1000}),
        (Reason.PIXEL_SIZE, {"NumberOfFrames": 2}),
    ],
)
def test_everything_else_is_refused_with_its_reason(
    reason: Reason, elements: dict[str, Any]
) -> None:
    verdict = judge_header(chest_header(**elements))
    assert verdict is not None
    assert verdict.reason is reason


def test_an_own_heatmap_is_recognised_by_its_contributing_equipment() -> None:
    equipment = Dataset()
    equipment.Manufacturer = "dicomnode"
    ds = chest_header(ImageType=["DERIVED", "SECONDARY"], ContributingEquipmentSequence=[equipment])
    verdict = judge_header(ds)
    assert verdict is not None
    assert verdict.reason is Reason.OWN_PRODUCT


def test_a_refusal_repeats_no_free_text_of_the_header() -> None:
    secret = "Jane Doe 4711"
    for keyword in ("Modality", "BodyPartExamined", "ViewPosition", "SeriesDescription"):
        for suffix in ("", " lateral knee dog"):
            verdict = judge_header(chest_header(**{keyword: secret + suffix}))
            assert verdict is None or "Jane" not in verdict.detail


def test_a_blank_image_is_refused() -> None:
    for level in (0, 255):
        verdict = judge_pixels(np.full((300, 300), level, np.uint8), chest_is_named=True)
        assert verdict is not None
        assert verdict.reason is Reason.CONTRAST


def test_a_coloured_image_is_refused_and_grey_in_rgb_is_not() -> None:
    grey = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
    assert judge_pixels(grey, chest_is_named=True, coloured=0.001) is None
    verdict = judge_pixels(grey, chest_is_named=True, coloured=0.1)
    assert verdict is not None
    assert verdict.reason is Reason.SECONDARY_CAPTURE


def test_without_a_named_body_part_the_image_must_look_like_a_chest() -> None:
    grey = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
    assert judge_pixels(grey, chest_is_named=True) is None
    verdict = judge_pixels(grey)
    assert isinstance(verdict, NotEvaluated)
    assert verdict.reason is Reason.APPEARANCE
