"""What the report says, and what it must never say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from io import BytesIO

import pytest
from highdicom.sr import srread
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, ExplicitVRLittleEndian

from dicomnode.dimse.implementation import IMPLEMENTATION_CLASS_UID, MANUFACTURER
from dicomnode.errors import ModelCardMissing, ReportUnbuildable
from dicomnode.sr import build_report, to_bytes, tracking_uid
from tests.unit.sr.examples import REFUSAL, card, content, evaluated, header

PROBABILITY, PRESENT, ABSENT, COVID = "122157", "52101004", "272519000", "840539006"


def items(ds: Dataset) -> Iterator[Dataset]:
    for item in ds.get("ContentSequence", []):
        yield item
        yield from items(item)


def name(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeValue)


def named(ds: Dataset, code: str) -> list[Dataset]:
    return [item for item in items(ds) if name(item) == code]


def groups(ds: Dataset) -> list[Dataset]:
    return named(ds, "125007")


def code(item: Dataset) -> str:
    return str(item.ConceptCodeSequence[0].CodeValue)


def codes(ds: Dataset) -> set[str]:
    return {element.value for element in ds.iterall() if element.keyword == "CodeValue"}


def read_back(ds: Dataset) -> Dataset:
    return dcmread(BytesIO(to_bytes(ds)))


def test_the_same_content_gives_the_same_bytes_whenever_it_is_built():
    headers = [header(1), header(2)]
    first = to_bytes(build_report(content(headers)))

    again = to_bytes(build_report(content([header(1), header(2)])))

    assert first == again


def test_no_moment_but_the_content_time_is_written():
    written = {
        str(element.value)
        for element in build_report(content()).iterall()
        if element.VR in ("DA", "TM", "DT") and element.value
    }
    birth, study = {"19700102"}, {"20260301", "081500"}
    moment = {"20260304", "050607.890123", "20260304050607.890123+0000"}
    assert written == birth | study | moment


def test_the_document_is_a_preliminary_unverified_measurement_report():
    ds = read_back(build_report(content()))
    assert ds.SOPClassUID == Comprehensive3DSRStorage
    assert ds.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert ds.file_meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert (ds.SOPInstanceUID, ds.SeriesInstanceUID) == ("2.25.1001", "2.25.1002")
    assert ds.SeriesDescription == "AI result - investigational, not for diagnostic use"
    assert ds.CompletionFlag == "COMPLETE"
    assert ds.VerificationFlag == "UNVERIFIED"
    assert ds.PreliminaryFlag == "PRELIMINARY"
    assert ds.Manufacturer == MANUFACTURER
    assert name(ds) == "126000"
    assert ds.ContentTemplateSequence[0].TemplateIdentifier == "1500"


def test_each_image_has_a_group_with_finding_verdict_and_probability_inferred_from_it():
    outcomes = [evaluated(0.873), evaluated(0.04)]
    ds = read_back(build_report(content([header(1), header(2)], outcomes)))
    expected = [("1.2.826.0.1.3680043.10.99.3.1", PRESENT, 0.873),
                ("1.2.826.0.1.3680043.10.99.3.2", ABSENT, 0.04)]  # fmt: skip
    assert len(groups(ds)) == 2
    for group, (uid, verdict, probability) in zip(groups(ds), expected, strict=True):
        assert code(named(group, "121071")[0]) == COVID
        assert code(named(group, COVID)[0]) == verdict
        assert named(group, "112039")[0].TextValue.startswith("Image ")
        assert named(group, "112040")[0].UID.startswith("2.25.")
        number = named(group, PROBABILITY)[0]
        measured = number.MeasuredValueSequence[0]
        assert float(measured.NumericValue) == probability
        assert measured.MeasurementUnitsCodeSequence[0].CodeValue == "1"
        assert measured.MeasurementUnitsCodeSequence[0].CodingSchemeDesignator == "UCUM"
        source = number.ContentSequence[0]
        assert (source.RelationshipType, source.ValueType) == ("INFERRED FROM", "IMAGE")
        assert source.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == uid


def test_the_operating_threshold_is_a_parameter_of_the_algorithm():
    ds = build_report(content(outcomes=[evaluated(0.5, threshold=0.417)]))
    parameters = [item.TextValue for item in named(ds, "111002")]
    assert "operating threshold = 0.417" in parameters
    assert named(ds, "111001")[0].TextValue == "covid19"
    assert named(ds, "111003")[0].TextValue == "3"


def test_the_verdict_is_that_of_the_outcome_and_not_computed_again():
    """Rounding must never turn a verdict round."""
    outcome = replace(evaluated(0.4999999999), present=False)
    ds = build_report(content(outcomes=[outcome]))
    assert code(named(ds, COVID)[0]) == ABSENT


def test_every_version_that_answered_is_named_where_it_answered():
    headers = [header(1), header(2)]
    ds = build_report(content(headers, [evaluated(version=2), evaluated(version=3)]))
    old, new = groups(ds)
    assert named(old, "111003")[0].TextValue == "2"
    assert named(new, "111003")[0].TextValue == "3"
    root_observer = [item.UID for item in ds.ContentSequence if name(item) == "121012"]
    assert root_observer == [card(3).device_uid]
    assert [item.UID for item in named(old, "121012")] == [card(2).device_uid]
    equipment = {item.DeviceUID: item.SoftwareVersions for item in ds.ContributingEquipmentSequence}
    assert equipment[card(2).device_uid] == "2"
    assert equipment[card(3).device_uid] == "3"


def test_a_version_that_did_not_answer_is_not_named():
    ds = build_report(content(outcomes=[evaluated(version=2)]))
    uids = {element.value for element in ds.iterall() if element.VR == "UI"}
    assert card(2).device_uid in uids
    assert card(3).device_uid not in uids


def test_what_was_not_evaluated_says_why_and_carries_neither_number_nor_disease():
    ds = build_report(content([header(1), header(2)], [REFUSAL, REFUSAL]))
    assert len(groups(ds)) == 2
    for group in groups(ds):
        assert code(named(group, "121071")[0]) == "373121007"
        assert named(group, "121106")[0].TextValue == (
            "Not evaluated (view): the view is LL, expected AP or PA"
        )
    assert not {PROBABILITY, PRESENT, ABSENT, COVID} & codes(ds)
    assert ds.DeviceUID not in (card(2).device_uid, card(3).device_uid)


def test_a_mixture_keeps_each_image_to_its_own_outcome():
    headers = [header(1), header(2), header(3)]
    ds = build_report(content(headers, [REFUSAL, evaluated(0.9), REFUSAL]))
    assert [len(named(group, PROBABILITY)) for group in groups(ds)] == [0, 1, 0]
    assert [COVID in codes(group) for group in groups(ds)] == [False, True, False]


def test_another_kind_of_object_is_evidence_but_not_an_image():
    report = header(2, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33", Modality="SR")
    ds = build_report(content([header(1), report], [evaluated(), REFUSAL]))
    shown = {
        item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
        for item in items(ds)
        if item.ValueType == "IMAGE"
    }
    assert shown == {"1.2.826.0.1.3680043.10.99.3.1"}
    series = ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert len(series.ReferencedSOPSequence) == 2


@pytest.mark.parametrize(
    ("sop_class", "has_frames"),
    [("1.2.840.10008.5.1.4.1.1.7.2", True), ("1.2.840.10008.5.1.4.1.1.1", False)],
)
def test_the_first_frame_is_named_only_where_the_sop_class_has_frames(sop_class, has_frames):
    ds = build_report(content([header(NumberOfFrames=5, SOPClassUID=sop_class)]))
    source = named(ds, PROBABILITY)[0].ContentSequence[0].ReferencedSOPSequence[0]
    assert source.get("ReferencedFrameNumber") == (1 if has_frames else None)


def test_a_revision_names_its_predecessor_and_tracks_the_same_finding():
    first = build_report(content())
    study = "1.2.826.0.1.3680043.10.99.1"
    second = build_report(
        content(
            revision=2, sop_instance_uid="2.25.1003", predecessor=(study, "2.25.1002", "2.25.1001")
        )
    )
    reference = second.PredecessorDocumentsSequence[0]
    assert reference.StudyInstanceUID == study
    sop = reference.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert sop.ReferencedSOPInstanceUID == "2.25.1001"
    assert sop.ReferencedSOPClassUID == Comprehensive3DSRStorage
    assert "PredecessorDocumentsSequence" not in first
    assert named(first, "112040")[0].UID == named(second, "112040")[0].UID


def test_tracking_uids_differ_between_images_and_findings():
    other = card(finding={"value": "233604007", "scheme_designator": "SCT", "meaning": "Pneumonia"})
    uids = {tracking_uid(uid, c) for uid in ("1.2.3", "1.2.4") for c in (card(), other, None)}
    assert len(uids) == 6


def test_highdicom_reads_the_report_back():
    data = to_bytes(build_report(content([header(1), header(2)], [evaluated(0.873), REFUSAL])))
    report = srread(BytesIO(data))
    result, refusal = report.content.get_image_measurement_groups()
    assert result.get_measurements()[0].value == 0.873
    assert result.finding_type.value == COVID
    assert refusal.get_measurements() == []
    assert refusal.finding_type.meaning == "Not Evaluated"


def test_local_time_is_that_of_the_site_unless_the_images_declare_an_offset():
    site = timezone(timedelta(hours=2))
    ds = build_report(content(timezone=site))
    assert (str(ds.ContentDate), str(ds.ContentTime)) == ("20260304", "070607.890123")
    assert "TimezoneOffsetFromUTC" not in ds

    ds = build_report(content([header(TimezoneOffsetFromUTC="-0930")], timezone=site))
    assert (str(ds.ContentDate), str(ds.ContentTime)) == ("20260303", "193607.890123")
    assert ds.TimezoneOffsetFromUTC == "-0930"


def test_texts_of_a_card_are_made_to_fit():
    long = card(model_name="net\\work\n" + "n" * 54, manufacturer="m" * 90, intended_use="u" * 2000)
    ds = read_back(build_report(content(cards={3: long})))
    assert all(len(item.Manufacturer) <= 64 for item in ds.ContributingEquipmentSequence)
    assert "\\" not in str(ds.ManufacturerModelName)


def test_a_version_without_a_card_waits_for_it():
    with pytest.raises(ModelCardMissing, match="version 9"):
        build_report(content(outcomes=[evaluated(version=9)]))
    with pytest.raises(ModelCardMissing, match=r"version 3 of model .*got that of version 2"):
        build_report(content(cards={3: card(2)}))


@pytest.mark.parametrize("probability", [float("nan"), float("inf"), -0.01, 1.01])
def test_a_number_that_is_no_probability_is_not_reported(probability):
    with pytest.raises(ReportUnbuildable, match="expected a number from 0 to 1"):
        content(outcomes=[replace(evaluated(), probability=probability)])


def test_contents_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match="2 headers and 1 outcomes"):
        content([header(1), header(2)], [evaluated()])
    with pytest.raises(ValueError, match="aware"):
        content(content_time=datetime(2026, 1, 1))
    with pytest.raises(ReportUnbuildable, match="at least one image"):
        build_report(content([], []))
