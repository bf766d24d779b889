"""UIDs and header facts out of bytes that nobody has checked."""

from __future__ import annotations

import contextlib
import io
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid

from dicomnode.dimse import syntaxes
from dicomnode.dimse.header import INFLATED_BYTES, HeaderFacts, read_facts
from dicomnode.dimse.uid import is_uid, parse_uid
from dicomnode.errors import NotAnInstance


@pytest.mark.parametrize(
    "value", ["1", "0", "1.0.3", "2.25.329800735698586629295641978511506172918"]
)
def test_uids_are_uids(value: str) -> None:
    assert is_uid(value)
    assert parse_uid(value + "\0", what="x") == value


@pytest.mark.parametrize(
    "value",
    ["", ".", "1.", ".1", "1..2", "1.02", "00", "1.2.a", "../../etc/x", "1.2\n", "1.2/3", "1 .2",
     "1.2\0.3", "١.٢", "1" * 65],
)  # fmt: skip
def test_what_is_no_uid_is_refused_without_being_repeated(value: str) -> None:
    assert not is_uid(value)
    with pytest.raises(NotAnInstance) as caught:
        parse_uid(value.rstrip("\n") + "!", what="SOP Instance UID")
    assert "SOP Instance UID" in str(caught.value)
    assert "etc" not in str(caught.value)


def dataset() -> Dataset:
    built = Dataset()
    built.SpecificCharacterSet = "ISO_IR 192"
    built.SOPClassUID = syntaxes.COMPUTED_RADIOGRAPHY
    built.SOPInstanceUID = "1.2.3"
    built.AccessionNumber = "ACC"
    built.Modality = "CR"
    built.Manufacturer = "dicomnode"
    item = Dataset()
    item.CodeValue = "1"
    inner = Dataset()
    inner.CodeMeaning = "x"
    item.PurposeOfReferenceCodeSequence = Sequence([inner])
    built.ProcedureCodeSequence = Sequence([item, item])
    built.PatientID = "Ünal"
    built.StudyInstanceUID = "1.2.4"
    built.SeriesInstanceUID = "1.2.5"
    built.Rows = 3
    return built


def encoded(built: Dataset, syntax: str, *, undefined: bool = False) -> bytes:
    if undefined:
        for element in built.iterall():
            if element.VR == "SQ":
                element.is_undefined_length = True
                for item in element.value:
                    item.is_undefined_length_sequence_item = True
    buffer = io.BytesIO()
    dcmwrite(
        buffer,
        built,
        implicit_vr=syntax == syntaxes.IMPLICIT_VR_LITTLE_ENDIAN,
        little_endian=syntax != syntaxes.EXPLICIT_VR_BIG_ENDIAN,
    )
    return buffer.getvalue()


def facts(data: bytes, syntax: str = syntaxes.EXPLICIT_VR_LITTLE_ENDIAN) -> HeaderFacts:
    def read_at(offset: int, count: int) -> bytes:
        return data[offset : offset + count]

    return read_facts(read_at, syntax)


def deflate(data: bytes) -> bytes:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("syntax", syntaxes.TRANSFER_SYNTAXES[:3])
def test_facts_are_read_in_every_encoding(syntax: str, undefined: bool) -> None:
    assert facts(encoded(dataset(), syntax, undefined=undefined), syntax) == HeaderFacts(
        sop_class_uid=syntaxes.COMPUTED_RADIOGRAPHY,
        sop_instance_uid="1.2.3",
        study_instance_uid="1.2.4",
        series_instance_uid="1.2.5",
        accession_number="ACC",
        patient_id="Ünal",
        modality="CR",
        own_product=True,
    )


def test_facts_are_read_from_a_deflated_data_set() -> None:
    plain = encoded(dataset(), syntaxes.EXPLICIT_VR_LITTLE_ENDIAN)
    deflated = syntaxes.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
    assert facts(deflate(plain), deflated).study_instance_uid == "1.2.4"
    with pytest.raises(NotAnInstance, match="not deflated"):
        facts(plain, deflated)


def test_a_deflate_bomb_is_inflated_no_further_than_the_bound() -> None:
    bomb = deflate(bytes(256 * 1024 * 1024))
    tracemalloc.start()
    with pytest.raises(NotAnInstance):
        facts(bomb, syntaxes.DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * INFLATED_BYTES


def test_nesting_of_any_depth_is_walked_without_recursion() -> None:
    opened = bytes.fromhex("4000 7512 5351 0000 ffffffff feff00e0 ffffffff") * 20_000
    prefix = encoded(dataset(), syntaxes.EXPLICIT_VR_LITTLE_ENDIAN)
    head = prefix[: prefix.index(bytes.fromhex("1000 2000 4c4f"))]
    with pytest.raises(NotAnInstance, match="ends within"):
        facts(head + opened)
    closed = bytes.fromhex("feff0de0 00000000 feffdde0 00000000") * 20_000
    rest = prefix[len(head) :]
    assert facts(head + opened + closed + rest).study_instance_uid == "1.2.4"


def test_pixel_data_is_never_read() -> None:
    prefix = encoded(dataset(), syntaxes.EXPLICIT_VR_LITTLE_ENDIAN)
    reads = []

    def read_at(offset: int, count: int) -> bytes:
        reads.append((offset, count))
        return prefix[offset : offset + count] if offset < len(prefix) else b""

    read_facts(read_at, syntaxes.EXPLICIT_VR_LITTLE_ENDIAN)
    assert sum(count for _, count in reads) <= 64 * 1024


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        (lambda data: data[:40], "more than there are|ends within"),
        (lambda data: data + data, "given twice"),
        (lambda data: b"\x02\0\x10\0UI\x04\x001.2\0" + data, "does not belong"),
        (lambda data: b"\0\0\0\x01US\x02\0\x01\0" + data, "does not belong"),
        (lambda data: data.replace(b"1.2.4\0", b"1..2.4"), "Study Instance UID is not a UID"),
        (lambda data: data.replace(b"UI\x06\x001.2.4", b"UI\xff\xff1.2.4"), "more than there are"),
        (lambda data: data.replace(b"UI\x06\x001.2.4", b"zz\x06\x001.2.4"), "no value repr"),
    ],
)
def test_damage_is_named(damage: Callable[[bytes], bytes], finding: str) -> None:
    built = dataset()
    del built.SeriesInstanceUID
    built.SeriesInstanceUID = "1.2.5"
    data = encoded(built, syntaxes.EXPLICIT_VR_LITTLE_ENDIAN)
    if finding == "given twice":
        data = data[: data.index(b"\x20\0\x0d\0")]
    with pytest.raises(NotAnInstance, match=finding):
        facts(damage(data))


@given(st.binary(max_size=500), st.sampled_from(syntaxes.TRANSFER_SYNTAXES[:4]))
def test_any_bytes_are_an_instance_or_not_one(data: bytes, syntax: str) -> None:
    with contextlib.suppress(NotAnInstance):
        facts(data, syntax)


@given(st.integers(0, 300), st.binary(min_size=1, max_size=6))
def test_a_damaged_header_is_an_instance_or_not_one(position: int, damage: bytes) -> None:
    data = bytearray(encoded(dataset(), syntaxes.EXPLICIT_VR_LITTLE_ENDIAN, undefined=True))
    data[position : position + len(damage)] = damage
    try:
        found = facts(bytes(data))
    except NotAnInstance:
        return
    assert is_uid(found.study_instance_uid)


def test_an_identifier_that_is_too_long_is_left_out_rather_than_cut() -> None:
    built = dataset()
    built.PatientID = "P" * 65
    assert facts(encoded(built, syntaxes.EXPLICIT_VR_LITTLE_ENDIAN)).patient_id == ""


def test_random_uids_of_pydicom_are_uids() -> None:
    assert all(is_uid(generate_uid()) for _ in range(50))
