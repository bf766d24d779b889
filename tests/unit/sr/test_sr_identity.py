"""Whose report it is: verbatim, or empty, or no report at all."""

from __future__ import annotations

from io import BytesIO

import pytest
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset

from dicomnode.errors import ReportUnbuildable
from dicomnode.sr import build_report, to_bytes
from tests.unit.sr.examples import content, header, put_bytes

GREEK = "Διονυσίου^Ελένη"
JAPANESE = "Yamada^Tarou=山田^太郎=やまだ^たろう"


def report_of(*headers: Dataset) -> Dataset:
    return dcmread(BytesIO(to_bytes(build_report(content(list(headers))))))


def test_identity_is_carried_verbatim():
    ds = report_of(header(IssuerOfPatientID="HOSP", StudyDescription="Chest PA"))
    assert ds.PatientID == "PID-0042"
    assert ds.PatientName == "Phantom^Ada"
    assert (ds.PatientBirthDate, ds.PatientSex) == ("19700102", "F")
    assert (ds.AccessionNumber, ds.StudyID) == ("ACC-7", "S1")
    assert (ds.StudyDate, ds.StudyTime) == ("20260301", "081500")
    assert ds.ReferringPhysicianName == "House^Gregory"
    assert ds.IssuerOfPatientID == "HOSP"
    assert ds.StudyDescription == "Chest PA"


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 126", GREEK),
        ("ISO_IR 192", JAPANESE),
        (["", "ISO 2022 IR 87"], JAPANESE),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
        ("ISO_IR 100", "Müller^Jörg"),
    ],
)
def test_names_of_every_script_arrive_in_utf_8(charset, name):
    source = header(SpecificCharacterSet=charset, PatientName=name)
    buffer = BytesIO()
    dcmwrite(buffer, source, implicit_vr=False, little_endian=True)
    as_stored = dcmread(BytesIO(buffer.getvalue()), force=True)

    ds = report_of(as_stored)

    assert ds.SpecificCharacterSet == "ISO_IR 192"
    assert ds.PatientName == name


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientName", b"A" * 640),
        ("PatientName", b"^".join([b"part"] * 10)),
        ("PatientName", b"a=b=c=d"),
        ("PatientName", b"two\\names"),
        ("PatientName", b"bell\x07^ring"),
        ("PatientName", b"null\x00inside"),
        ("PatientName", b"\xff\xfe not utf-8"),
        ("PatientBirthDate", b"99999999"),
        ("PatientBirthDate", b"19700230"),
        ("PatientBirthDate", b"1970.01.02"),
        ("PatientSex", b"?"),
        ("AccessionNumber", b"longer than sixteen"),
        ("StudyID", b"also longer than sixteen"),
        ("StudyDate", b"NotADate"),
        ("StudyTime", b"25:61"),
        ("StudyTime", b"2460"),
        ("ReferringPhysicianName", b"x" * 32768),
    ],
)
def test_a_value_that_cannot_be_carried_leaves_its_element_empty(keyword, value):
    source = header()
    put_bytes(source, keyword, value)
    ds = report_of(source)
    assert str(ds[keyword].value or "") == ""
    assert ds.PatientID == "PID-0042"


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("IssuerOfPatientID", b"x" * 65),
        ("StudyDescription", b"x" * 4096),
        ("TimezoneOffsetFromUTC", b"+2500"),
        ("TimezoneOffsetFromUTC", b"-0000"),
        ("PatientAge", b"old"),
    ],
)
def test_an_optional_value_that_cannot_be_carried_is_dropped(keyword, value):
    source = header()
    put_bytes(source, keyword, value)
    assert keyword not in report_of(source)


@pytest.mark.parametrize(
    ("value", "vr"),
    [
        (b"x" * 65, "LO"),
        (b"ONE\\TWO", "LO"),
        (b"PID\x00-0042", "LO"),
        (b"PID\n0042", "LO"),
        (b"\xc3\x28", "LO"),
        (b"\x01\x00", "US"),
    ],
)
def test_a_patient_id_that_cannot_be_carried_verbatim_means_no_report(value, vr):
    source = header()
    put_bytes(source, "PatientID", value, vr)
    with pytest.raises(ReportUnbuildable, match=r"\(0010,0020\) PatientID") as caught:
        build_report(content([source]))
    assert "0042" not in str(caught.value)


def test_a_patient_id_in_an_undeclared_character_set_means_no_report():
    source = header(SpecificCharacterSet=None)
    put_bytes(source, "PatientID", "Ü-42".encode("latin-1"))
    with pytest.raises(ReportUnbuildable, match="PatientID"):
        build_report(content([source]))


def test_a_name_in_an_undeclared_character_set_is_not_guessed():
    source = header(SpecificCharacterSet=None)
    put_bytes(source, "PatientName", "Тестов^Тест".encode("cp1251"))
    assert str(report_of(source).PatientName) == ""


def test_a_guess_that_pydicom_already_made_is_not_believed():
    source = header(SpecificCharacterSet=None)
    put_bytes(source, "PatientName", "Тестов^Тест".encode("cp1251"))
    assert "Òåñòîâ" in str(source.PatientName)  # converted in place, as Latin-1
    assert str(report_of(source).PatientName) == ""


def test_the_default_repertoire_beside_a_code_extension_is_ascii():
    source = header(SpecificCharacterSet=["", "ISO 2022 IR 87"])
    put_bytes(source, "PatientName", b"caf\xe9")
    assert str(report_of(source).PatientName) == ""


def test_an_unknown_character_set_is_not_guessed():
    source = header(SpecificCharacterSet=None)
    put_bytes(source, "SpecificCharacterSet", b"KLINGON")
    put_bytes(source, "PatientName", b"caf\xe9")
    assert str(report_of(source).PatientName) == ""
    put_bytes(source, "PatientName", b"Phantom^Ada")
    assert report_of(source).PatientName == "Phantom^Ada"


def test_a_patient_id_under_an_unknown_vr_is_still_its_bytes():
    source = header()
    put_bytes(source, "PatientID", b"PID-0042 ", "UN")
    assert report_of(source).PatientID == "PID-0042"


def test_lengths_are_counted_in_characters_and_not_in_bytes():
    """PS3.5 6.2. dciodvfy counts the bytes of UTF-8, so it is not asked about these."""
    ds = report_of(header(PatientName="Δ" * 62 + "^Ε", PatientID="Ω" * 64))
    assert ds.PatientName == "Δ" * 62 + "^Ε"
    assert ds.PatientID == "Ω" * 64


def test_missing_identity_is_empty_and_not_invented():
    keywords = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber",
                "StudyID", "StudyDate", "StudyTime", "ReferringPhysicianName")  # fmt: skip
    ds = report_of(header(**dict.fromkeys(keywords)))
    for keyword in keywords:
        assert str(ds[keyword].value or "") == ""


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("PatientID", "PID-0043"),
        ("PatientID", ""),
        ("PatientName", "Phantom^Eve"),
        ("PatientBirthDate", "19700103"),
        ("IssuerOfPatientID", "ELSEWHERE"),
        ("StudyInstanceUID", "1.2.3"),
    ],
)
def test_images_that_disagree_about_the_patient_mean_no_report(keyword, value):
    first = header(1, IssuerOfPatientID="HOSP")
    second = header(2, IssuerOfPatientID="HOSP")
    setattr(second, keyword, value)
    with pytest.raises(ReportUnbuildable, match=keyword) as caught:
        build_report(content([first, second]))
    for secret in ("PID", "Phantom", "1970", "HOSP", "ELSEWHERE"):
        assert secret not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["PHANTOM^ADA", "Phantom^Ada^^^", "Phantom^Ada ", "", "Phantom^Ada=幻^影"]
)
def test_other_ways_of_writing_the_same_name_are_no_disagreement(name):
    ds = report_of(header(1), header(2, PatientName=name))
    assert ds.PatientName == "Phantom^Ada"


def test_two_ideographic_names_that_differ_are_a_disagreement():
    one, two = header(1, PatientName="A^B=山田^太郎"), header(2, PatientName="A^B=山田^花子")
    with pytest.raises(ReportUnbuildable, match="PatientName"):
        build_report(content([one, two]))


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID"])
@pytest.mark.parametrize("value", [b"", b"../../etc/x", b"1.02.3", b"9.9", b"1." * 40])
def test_an_image_without_a_usable_uid_cannot_be_reported(keyword, value):
    source = header()
    put_bytes(source, keyword, value)
    with pytest.raises(ReportUnbuildable, match=keyword) as caught:
        build_report(content([source]))
    assert "etc" not in str(caught.value)


def test_the_study_under_which_the_node_indexed_an_image_stands_in_for_a_missing_uid():
    source = header(StudyInstanceUID=None)
    with pytest.raises(ReportUnbuildable, match="StudyInstanceUID"):
        build_report(content([source]))
    ds = build_report(content([source], study_instance_uid="1.2.3.4"))
    assert ds.StudyInstanceUID == "1.2.3.4"
    with pytest.raises(ReportUnbuildable, match="StudyInstanceUID"):
        build_report(content([header()], study_instance_uid="1.2.3.4"))


def test_the_order_is_carried_into_the_referenced_request():
    request = Dataset()
    request.RequestedProcedureID = "RP-1"
    request.RequestedProcedureDescription = "Chest PA"
    request.AccessionNumber = "far longer than sixteen characters"
    ds = report_of(header(1, RequestAttributesSequence=[request]),
                   header(2, RequestAttributesSequence=[request]))  # fmt: skip
    assert len(ds.ReferencedRequestSequence) == 1
    item = ds.ReferencedRequestSequence[0]
    assert item.RequestedProcedureID == "RP-1"
    assert item.RequestedProcedureDescription == "Chest PA"
    assert item.AccessionNumber == ""
    assert item.StudyInstanceUID == ds.StudyInstanceUID


def test_other_patient_ids_are_carried_only_whole():
    whole, broken = Dataset(), Dataset()
    whole.PatientID, whole.IssuerOfPatientID, whole.TypeOfPatientID = "X9", "ELSEWHERE", "TEXT"
    broken.PatientID, broken.TypeOfPatientID = "y" * 65, "TEXT"
    ds = report_of(header(OtherPatientIDsSequence=[whole, broken]))
    assert [item.PatientID for item in ds.OtherPatientIDsSequence] == ["X9"]


def test_a_header_cannot_fill_the_report_with_requests():
    requests = []
    for number in range(200):
        item = Dataset()
        item.RequestedProcedureID = f"RP-{number}"
        requests.append(item)
    ds = report_of(header(RequestAttributesSequence=requests))
    assert len(ds.ReferencedRequestSequence) == 32


def test_nothing_else_of_the_header_is_copied():
    source = header(PatientComments="free text", PatientAddress="1 Street", OperatorsName="A^B")
    source.add_new(0x00111001, "LO", "private")
    ds = report_of(source)
    for keyword in ("PatientComments", "PatientAddress", "OperatorsName"):
        assert keyword not in ds
    assert not [element for element in ds if element.tag.is_private]
