"""Headers that strangers wrote: read as far as is safe, refused in our own words beyond."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicomnode.errors import NotAnInstance, NotInStore
from dicomnode.storage import header
from dicomnode.storage.header import read_header


def write(path: Path, *, syntax: str = ExplicitVRLittleEndian, pixels: int = 16) -> Dataset:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    ds.SOPInstanceUID = "1.2.3"
    ds.PatientName = "Test^Phantom"
    item = Dataset()
    item.ReferencedSOPInstanceUID = "1.2.9"
    ds.SourceImageSequence = [item]
    ds.PixelData = b"\0" * pixels
    ds["PixelData"].VR = "OW"
    ds.save_as(path, enforce_file_format=True)
    return ds


def explicit(group: int, element: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    size = len(value) if length is None else length
    return struct.pack("<HH2sHL", group, element, vr, 0, size) + value


def raw(path: Path, body: bytes) -> None:
    """A Part 10 file in Explicit VR Little Endian around `body`."""
    path.write_bytes(b"")
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2", "1.2.3"
    ds.save_as(path, enforce_file_format=True)
    path.write_bytes(path.read_bytes() + body)


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian]
)
def test_a_header_is_read_without_its_pixels(tmp_path: Path, syntax: str) -> None:
    expected = write(tmp_path / "a.dcm", syntax=syntax)
    ds = read_header(tmp_path / "a.dcm")
    assert "PixelData" not in ds
    del expected.PixelData
    assert expected == ds
    assert ds.file_meta.TransferSyntaxUID == syntax


def test_a_deflated_bomb_is_inflated_no_further_than_its_header(tmp_path: Path) -> None:
    write(tmp_path / "a.dcm", syntax=DeflatedExplicitVRLittleEndian, pixels=64 * 1024 * 1024)
    assert (tmp_path / "a.dcm").stat().st_size < 200_000
    assert read_header(tmp_path / "a.dcm").SOPInstanceUID == "1.2.3"


def test_a_deflated_header_without_end_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.dcm", syntax=DeflatedExplicitVRLittleEndian)
    plain = (tmp_path / "a.dcm").read_bytes()
    meta = plain[: 132 + 12 + struct.unpack_from("<L", plain, 140)[0]]
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    value = explicit(0x0009, 0x1010, b"OB", b"\0" * (20 * 1024 * 1024))
    (tmp_path / "a.dcm").write_bytes(meta + deflate.compress(value) + deflate.flush())
    with pytest.raises(NotAnInstance, match=r"a\.dcm has a header of more than"):
        read_header(tmp_path / "a.dcm")


def test_a_long_value_is_left_out_and_what_follows_is_read(tmp_path: Path) -> None:
    long = explicit(0x0009, 0x1010, b"OB", b"\0" * (header.MAXIMUM_VALUE_BYTES + 2))
    raw(tmp_path / "a.dcm", long + explicit(0x0009, 0x1020, b"OB", b"ab"))
    ds = read_header(tmp_path / "a.dcm")
    assert (0x0009, 0x1010) not in ds
    assert ds[0x0009, 0x1020].value == b"ab"


def test_a_length_of_four_gigabytes_reserves_no_memory(tmp_path: Path) -> None:
    raw(tmp_path / "a.dcm", explicit(0x0009, 0x1010, b"OB", b"short", length=0xFFFFFFF0))
    assert read_header(tmp_path / "a.dcm").SOPInstanceUID == "1.2.3"


def test_a_large_value_inside_a_sequence_is_refused(tmp_path: Path) -> None:
    value = explicit(0x0009, 0x1010, b"OB", b"\0" * (header.MAXIMUM_HEADER_BYTES + 2))
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF) + value
    raw(tmp_path / "a.dcm", explicit(0x0040, 0xA730, b"SQ", item, length=0xFFFFFFFF))
    with pytest.raises(NotAnInstance):
        read_header(tmp_path / "a.dcm")


def test_no_more_than_the_bound_is_ever_asked_of_the_file() -> None:
    """A value of half a gigabyte is refused before it is in memory, not after."""

    class Endless(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise AssertionError(f"{size} bytes were asked for")

    with pytest.raises(header._TooLong):
        header._Bounded(Endless()).read(header.MAXIMUM_HEADER_BYTES + 1)


def test_a_million_elements_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header, "MAXIMUM_READS", 1000)
    raw(tmp_path / "a.dcm", b"".join(explicit(9, n, b"OB", b"") for n in range(0x1000, 0x1400)))
    with pytest.raises(NotAnInstance, match="no radiograph"):
        read_header(tmp_path / "a.dcm")


def test_an_endless_nesting_is_refused(tmp_path: Path) -> None:
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
    nested = explicit(0x0040, 0xA730, b"SQ", item, length=0xFFFFFFFF)
    raw(tmp_path / "a.dcm", nested * 5000)
    with pytest.raises(NotAnInstance, match="RecursionError"):
        read_header(tmp_path / "a.dcm")


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\0" * 128 + b"DICM"])
def test_what_is_no_dicom_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.dcm").write_bytes(content)
    with pytest.raises(NotAnInstance, match=r"a\.dcm"):
        read_header(tmp_path / "a.dcm")


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotInStore, match=r"gone\.dcm"):
        read_header(tmp_path / "gone.dcm")


def test_real_headers_are_read_as_pydicom_reads_them(shared_data: Path) -> None:
    seen = 0
    for path in sorted((shared_data / "dicom").glob("*.dcm")):
        if path.read_bytes()[128:132] != b"DICM":
            continue
        expected = pydicom.dcmread(path, stop_before_pixels=True)
        assert read_header(path) == expected, path.name
        seen += 1
    assert seen > 50


def test_malformed_headers_are_read_or_refused_and_nothing_else(shared_data: Path) -> None:
    for path in sorted((shared_data / "dicom-hostile").glob("*.dcm")):
        try:
            read_header(path)
        except NotAnInstance as error:
            assert path.name in str(error)
