"""CSV files of labels as people and spreadsheets write them."""

from __future__ import annotations

import contextlib
import io
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomnode.errors import LabelsRefused
from dicomnode.storage import labelfile
from dicomnode.storage.labelfile import LabelFile, LabelLine, read_label_file, write_labels
from dicomnode.storage.labelled import Label

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def read(text: str | bytes, *, withdraw: bool = False) -> LabelFile:
    data = text if isinstance(text, bytes) else text.encode()
    return read_label_file(data, now=NOW, withdraw=withdraw)


def refusal(text: str | bytes) -> str:
    with pytest.raises(LabelsRefused) as refused:
        read(text)
    return str(refused.value)


ONE = LabelLine(line=2, sop_instance_uid="1.2.3", label="positive", author="Müller")


@pytest.mark.parametrize(
    "data",
    [
        "sop_instance_uid,label,author\n1.2.3,positive,Müller\n".encode(),
        "sop_instance_uid,label,author\r\n1.2.3,positive,Müller\r\n\r\n".encode(),
        "\ufeffSOPInstanceUID;Label;Author\r\n1.2.3;positive;Müller\r\n".encode(),
        "SOP Instance UID\tLABEL\tauthor\n 1.2.3\t positive \tMüller".encode(),
        '"sop-instance-uid","label","author"\n"1.2.3","positive","Müller"\n'.encode(),
        "SOPInstanceUID\tLabel\tAuthor\r\n1.2.3\tpositive\tMüller\r\n".encode("utf-16"),
    ],
    ids=["plain", "crlf", "excel", "tabs", "quoted", "unicode text"],
)
def test_the_same_line_is_read_however_a_spreadsheet_wrote_it(data: bytes) -> None:
    assert read(data).lines == (ONE,)


def test_the_separator_line_of_excel_is_read_and_lines_keep_their_numbers() -> None:
    assert read("sep=;\r\nstudy_instance_uid;label\r\n1.2.3;positive\r\n").lines[0].line == 3
    told = refusal("sep=;\nstudy_instance_uid;label\n1.2.3;positive\nx;positive\n")
    assert "line 4: study_instance_uid is not a UID" in told


def test_columns_that_are_not_ours_are_left_out_by_number() -> None:
    found = read("ward,study_instance_uid,label,sex\nB2,1.2.3,positive,F\n")
    assert found.columns_left_out == (1, 4)
    assert found.lines[0].study_instance_uid == "1.2.3"


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("sop_instance_uid,source", "label and one of"),
        ("label,author", "label and one of"),
        ("", "label and one of"),
        ("1.2.3,positive", "none of them"),
        ("sop_instance_uid,label,autor", "the header of column 3 is nearly author"),
        ("sop_instance_uid,label,SOPInstanceUID", "columns 1 and 3 are both sop_instance_uid"),
    ],
)
def test_a_header_that_cannot_be_read_is_refused(header: str, told: str) -> None:
    assert told in refusal(f"{header}\n1.2.3,positive,x\n")


def test_a_header_that_is_a_patient_is_not_repeated() -> None:
    assert "Doe" not in refusal("Doe^John,positive\n1.2.3,positive\n")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("1.2.3,,positive", "3 columns; the header has 7"),
        (",,,,positive,,", "no key"),
        ("1.2.,,,,positive,,", "sop_instance_uid is not a UID"),
        ("12345,,,,positive,,", "sop_instance_uid is not a UID"),
        (f"1.{'2' * 63},,,,positive,,", "sop_instance_uid is not a UID"),
        ("../../etc/x,,,,positive,,", "sop_instance_uid is not a UID"),
        (f",,{'A' * 65},,positive,,", "accession_number is longer"),
        ("1.2.3,,,,,,", "the label is empty; with --withdraw"),
        ("1.2.3,,,,Doe^John,,", "the label cannot be a class name"),
        ("1.2.3,,,,positive,=cmd(),", "the author cannot be used"),
        ("1.2.3,,,,positive,,yesterday", "time is not ISO 8601"),
        ("1.2.3,,,,positive,,9999-12-31T23:59:59+00:00", "time is in the future"),
    ],
)
def test_a_line_that_cannot_be_used_is_named_and_its_cells_are_not_repeated(
    row: str, told: str
) -> None:
    header = "sop_instance_uid,study_instance_uid,accession_number,patient_id,label,author,time"
    found = refusal(f"{header}\n1.2.3.4,,,,positive,,\n{row}\n")
    assert f"line 3: {told}" in found
    assert "nothing was recorded" in found
    assert "line 2" not in found
    assert "Doe" not in found


def test_only_the_first_problems_are_told_and_the_rest_counted() -> None:
    told = refusal("sop_instance_uid,label\n" + "x,positive\n" * 50)
    assert "line 21:" in told
    assert "line 22:" not in told
    assert "and 30 more" in told


def test_quotes_and_encodings_that_are_broken_are_named_by_line() -> None:
    assert "line 3 is no CSV" in refusal('sop_instance_uid,label\n1.2.3,a\n"1.2.3"x,positive\n')
    latin = "sop_instance_uid,label,author\n1.2.3,positive,Müller\n".encode("latin-1")
    assert "line 2 is not UTF-8" in refusal(latin)
    assert "is not UTF-16" in refusal("sop,label\n".encode("utf-16")[:-1])
    assert "no CSV" in refusal("sop_instance_uid,label\n1.2.3," + "x" * 200_000)


def test_a_file_that_is_too_large_is_refused_before_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(labelfile, "MAXIMUM_BYTES", 100)
    assert "at most 100" in refusal("sop_instance_uid,label\n" + "1.2.3,a\n" * 20)
    monkeypatch.setattr(labelfile, "MAXIMUM_BYTES", 10_000)
    monkeypatch.setattr(labelfile, "MAXIMUM_LINES", 10)
    assert len(read("sop_instance_uid,label\n" + "1.2.3,a\n" * 10).lines) == 10
    assert "more than 10 lines" in refusal("sop_instance_uid,label\n" + "1.2.3,a\n" * 11)


def test_an_empty_label_takes_back_only_when_that_is_asked_for() -> None:
    assert read("sop_instance_uid,label\n1.2.3,\n", withdraw=True).lines[0].label == ""


def test_a_time_keeps_its_zone_and_without_one_it_is_this_machines() -> None:
    header = "sop_instance_uid,label,time\n"
    (line,) = read(header + "1.2.3,positive,2026-03-04T05:06:07.5+01:00\n").lines
    assert line.labelled_at == datetime(2026, 3, 4, 4, 6, 7, 500_000, tzinfo=UTC)
    (line,) = read(header + "1.2.3,positive,2026-03-04 05:06\n").lines
    assert line.labelled_at == datetime(2026, 3, 4, 5, 6).astimezone()


def test_a_line_shows_no_patient_in_its_repr() -> None:
    line = LabelLine(line=1, label="a", accession_number="ACC-77", patient_id="PAT-77")
    assert "77" not in repr(line)


def test_what_is_written_is_read_as_it_was() -> None:
    said = Label(
        id=1,
        study_instance_uid="1.2.9",
        sop_instance_uid="1.2.3",
        label="no finding",
        source="ris",
        author='Müller, "Karl"'.replace('"', "'"),
        labelled_at=NOW - timedelta(microseconds=1),
        recorded_at=NOW,
    )
    old = Label(**(vars(said) | {"superseded_at": NOW, "label": "positive"}))
    stream = io.StringIO()
    assert write_labels(stream, [old, said], history=True) == 2
    found = read(stream.getvalue())
    assert found.superseded == 1
    assert found.lines == (
        LabelLine(
            line=3,
            sop_instance_uid="1.2.3",
            study_instance_uid="1.2.9",
            label=said.label,
            source=said.source,
            author=said.author,
            labelled_at=said.labelled_at,
        ),
    )
    assert found.columns_left_out == ()


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@settings(max_examples=200, deadline=None)
def test_whatever_a_file_holds_it_is_read_or_refused(data: bytes) -> None:
    for beginning in (b"", b"sop_instance_uid,label,time\n1.2.3,"):
        with contextlib.suppress(LabelsRefused):
            read_label_file(beginning + data, now=NOW)
