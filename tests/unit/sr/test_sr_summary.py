"""The report in JSON and in words."""

from __future__ import annotations

import json

from dicomnode.sr import build_report, report_json, report_json_bytes, report_text
from tests.unit.sr.examples import REFUSAL, card, content, evaluated, header

MIXED = content([header(1), header(2)], [evaluated(0.873), REFUSAL])


def test_json_and_document_say_the_same():
    facts, ds = report_json(MIXED), build_report(MIXED)
    assert facts["study_instance_uid"] == ds.StudyInstanceUID
    assert facts["documents"][0]["sop_instance_uid"] == ds.SOPInstanceUID
    assert facts["documents"][0]["sop_class_uid"] == ds.SOPClassUID
    written = {element.value for element in ds.iterall() if element.keyword in ("UID", "DeviceUID")}
    for image in facts["images"]:
        assert image["tracking_uid"] in written
    assert facts["images"][0]["model"]["device_uid"] in written


def test_an_evaluated_image_has_its_numbers_and_who_says_so():
    image = report_json(MIXED)["images"][0]
    assert image["evaluated"] is True
    assert image["finding"]["value"] == "840539006"
    assert (image["present"], image["probability"], image["threshold"]) == (True, 0.873, 0.5)
    assert image["model"] == {
        "name": "covid19",
        "version": 3,
        "manufacturer": "dicomnode",
        "device_uid": card().device_uid,
    }


def test_an_image_that_was_not_evaluated_has_a_reason_and_no_number():
    image = report_json(MIXED)["images"][1]
    assert image["evaluated"] is False
    assert (image["reason"], image["detail"]) == ("view", "the view is LL, expected AP or PA")
    assert not {"probability", "present", "finding", "model"} & image.keys()


def test_no_patient_data_leaves_in_either_form():
    for text in (json.dumps(report_json(MIXED)), report_text(MIXED)):
        for secret in ("PID-0042", "Phantom", "19700102", "ACC-7", "House"):
            assert secret not in text


def test_the_text_is_the_same_from_content_and_from_stored_json():
    stored = json.loads(report_json_bytes(MIXED))
    assert report_text(stored) == report_text(MIXED)
    assert report_json_bytes(MIXED) == report_json_bytes(MIXED)


def test_the_text_says_what_a_reader_must_know():
    text = report_text(MIXED)
    assert text.startswith("INVESTIGATIONAL - NOT FOR DIAGNOSTIC USE")
    assert "COVID-19: PRESENT" in text
    assert "probability 0.873, threshold 0.500" in text
    assert "model covid19 version 3" in text
    assert "not evaluated (view): the view is LL" in text


def test_a_revision_says_what_it_replaces():
    revised = content(revision=2, predecessor=("1.2.3", "1.2.4", "1.2.5"))
    assert report_json(revised)["predecessor_sop_instance_uid"] == "1.2.5"
    assert "Replaces   1.2.5" in report_text(revised)
