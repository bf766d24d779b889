"""C-STORE over loopback: what is received, kept and answered."""

from __future__ import annotations

import errno
import hashlib
import io
import os
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite

from dicomnode.dimse import syntaxes
from dicomnode.errors import StorageFull
from dicomnode.status import StorageStatus
from dicomnode.testing.senders import ABORTED, RawSender, push, push_file, split_file
from tests.integration.dimse_scp import running_scp

INSTANCE = "1.2.826.0.1.3680043.8.498.1"


def cr_bytes(**values: object) -> bytes:
    """A small CR data set in Explicit VR Little Endian."""
    dataset = Dataset()
    dataset.SOPClassUID = syntaxes.COMPUTED_RADIOGRAPHY
    dataset.SOPInstanceUID = INSTANCE
    dataset.AccessionNumber = "A1"
    dataset.Modality = "CR"
    dataset.Manufacturer = "ACME"
    dataset.PatientID = "P1"
    dataset.StudyInstanceUID = "1.2.3.1"
    dataset.SeriesInstanceUID = "1.2.3.2"
    for keyword, value in values.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, implicit_vr=False, little_endian=True)
    return buffer.getvalue()


def test_the_data_set_is_kept_as_received_and_its_facts_are_read(tmp_path: Path) -> None:
    data = cr_bytes()
    with running_scp(tmp_path) as node:
        status = push(node.host, node.port, data, sop_instance_uid=INSTANCE)
        (received,) = node.recorder.received
    assert status == 0x0000
    meta, kept = split_file(received.path.read_bytes())
    assert kept == data
    assert received.size == received.path.stat().st_size
    assert received.digest == hashlib.sha256(data).hexdigest()
    assert received.sop_instance_uid == INSTANCE
    assert received.study_instance_uid == "1.2.3.1"
    assert received.series_instance_uid == "1.2.3.2"
    assert received.accession_number == "A1"
    assert received.patient_id == "P1"
    assert received.modality == "CR"
    assert received.calling_ae_title == "TESTER"
    assert received.transfer_syntax_uid == syntaxes.EXPLICIT_VR_LITTLE_ENDIAN
    assert received.own_product is False
    assert received.received_at.tzinfo is not None
    file = pydicom.dcmread(received.path)
    assert file.file_meta.MediaStorageSOPInstanceUID == INSTANCE
    assert file.file_meta.SourceApplicationEntityTitle == "TESTER"
    assert meta[0x0010].rstrip(b"\0").decode() == syntaxes.EXPLICIT_VR_LITTLE_ENDIAN


def test_what_a_dicomnode_made_is_recognised(tmp_path: Path) -> None:
    with running_scp(tmp_path) as node:
        data = cr_bytes(Manufacturer="dicomnode")
        assert push(node.host, node.port, data, sop_instance_uid=INSTANCE) == 0x0000
        assert node.recorder.received[0].own_product is True


@pytest.mark.parametrize(
    ("data", "options", "status"),
    [
        (cr_bytes(), {"sop_instance_uid": "../../etc/x"}, 0xC000),
        (cr_bytes(), {"sop_instance_uid": "1.2.3.05"}, 0xC000),
        (cr_bytes(), {"sop_instance_uid": "1.2.3.4"}, 0xA900),
        (cr_bytes(SOPClassUID=syntaxes.SECONDARY_CAPTURE), {}, 0xA900),
        (cr_bytes(SOPInstanceUID=None), {}, 0xC000),
        (cr_bytes(StudyInstanceUID=None), {}, 0xC000),
        (b"\0" * 64, {}, 0xC000),
        (b"", {}, 0xC000),
        (b"GET / HTTP/1.1\r\n\r\n", {}, 0xC000),
        (b"\x02\x00\x10\x00UI\x04\x001.2\0" + cr_bytes(), {}, 0xC000),
        (cr_bytes(), {"affected_sop_class_uid": syntaxes.SECONDARY_CAPTURE}, 0x0122),
    ],
)
def test_what_is_no_such_instance_is_refused_and_leaves_no_file(
    tmp_path: Path, data: bytes, options: dict[str, str], status: int
) -> None:
    with running_scp(tmp_path) as node:
        assert push(node.host, node.port, data, **({"sop_instance_uid": INSTANCE} | options)) == (
            status
        )
        assert node.recorder.received == []
        assert list(tmp_path.iterdir()) == []
        assert push(node.host, node.port, cr_bytes(), sop_instance_uid=INSTANCE) == 0x0000


def test_without_room_the_data_set_is_drained_and_nothing_is_written(tmp_path: Path) -> None:
    room = [False]
    with running_scp(tmp_path, has_room=lambda: room[0]) as node:
        with RawSender(node.host, node.port) as sender:
            sender.associate(
                [(syntaxes.COMPUTED_RADIOGRAPHY, [syntaxes.EXPLICIT_VR_LITTLE_ENDIAN])]
            )
            big = cr_bytes() + bytes(500_000)
            assert sender.store(big, sop_instance_uid=INSTANCE) == 0xA700
            assert list(tmp_path.iterdir()) == []
            room[0] = True
            assert sender.store(cr_bytes(), sop_instance_uid=INSTANCE) == 0x0000
        assert (
            node.count(
                "dicomnode_instances_received_total",
                calling_ae="unknown",
                outcome="out_of_resources",
            )
            == 1
        )


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (StorageFull("no space"), 0xA700),
        (RuntimeError("(parameters: PATIENT^NAME)"), 0xA700),
        (StorageStatus.OUT_OF_RESOURCES, 0xA700),
        (StorageStatus.CANNOT_UNDERSTAND, 0xC000),
    ],
)
def test_an_instance_that_accept_does_not_take_is_never_acknowledged(
    tmp_path: Path,
    answer: StorageStatus | Exception,
    status: int,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with running_scp(tmp_path) as node:
        node.recorder.answer = answer
        assert push(node.host, node.port, cr_bytes(), sop_instance_uid=INSTANCE) == status
        assert list(tmp_path.iterdir()) == []
    output = capsys.readouterr()
    assert "PATIENT" not in caplog.text + output.out + output.err


def test_a_write_error_is_answered_with_out_of_resources(tmp_path: Path) -> None:
    with running_scp(tmp_path / "missing") as node:
        assert push(node.host, node.port, cr_bytes(), sop_instance_uid=INSTANCE) == 0xA700


@pytest.mark.parametrize("further_bytes", [0, 1024 * 1024])
def test_a_disk_that_is_full_meanwhile_is_answered_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, further_bytes: int
) -> None:
    """Small ones are written when they are complete, large ones as they arrive."""
    real = os.write

    def write(descriptor: int, data: memoryview) -> int:
        if Path(f"/proc/self/fd/{descriptor}").readlink().suffix == ".part":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    data = cr_bytes() + bytes(further_bytes)
    with running_scp(tmp_path) as node:
        assert push(node.host, node.port, data, sop_instance_uid=INSTANCE) == 0xA700
        assert list(tmp_path.iterdir()) == []
        assert node.recorder.received == []


def test_a_data_set_beyond_the_limit_is_aborted_and_discarded(tmp_path: Path) -> None:
    with running_scp(tmp_path, maximum_instance_bytes=1024 * 1024) as node:
        big = cr_bytes() + bytes(3 * 1024 * 1024)
        assert push(node.host, node.port, big, sop_instance_uid=INSTANCE) == ABORTED
        assert list(tmp_path.iterdir()) == []
        assert node.count("dicomnode_associations_rejected_total", reason="too_large") == 1


def test_an_aborted_transfer_leaves_no_file(tmp_path: Path) -> None:
    with running_scp(tmp_path) as node:
        with RawSender(node.host, node.port) as sender:
            sender.associate(
                [(syntaxes.COMPUTED_RADIOGRAPHY, [syntaxes.EXPLICIT_VR_LITTLE_ENDIAN])]
            )
            from dicomnode.dimse import command as command_sets
            from dicomnode.dimse.command import CommandSet
            from dicomnode.testing.senders import fragment

            command = CommandSet(
                command_field=1,
                message_id=1,
                affected_sop_class_uid=syntaxes.COMPUTED_RADIOGRAPHY,
                affected_sop_instance_uid=INSTANCE,
                command_data_set_type=1,
            )
            sender.send(fragment(1, command_sets.encode(command), command=True))
            sender.send(fragment(1, cr_bytes(), last=False))
            sender.send(bytes.fromhex("070000000004 00000000"))
            assert sender.receive() == (0, b"")
        node.scp.stop()
        assert list(tmp_path.iterdir()) == []
        assert node.recorder.received == []


@pytest.mark.parametrize("fragment_bytes", [1, 7, 4096, 100_000])
def test_fragments_of_any_size_make_the_same_file(tmp_path: Path, fragment_bytes: int) -> None:
    data = cr_bytes()
    with running_scp(tmp_path) as node:
        status = push(
            node.host, node.port, data, sop_instance_uid=INSTANCE, fragment_bytes=fragment_bytes
        )
        assert status == 0x0000
        assert node.recorder.received[0].digest == hashlib.sha256(data).hexdigest()


def test_every_real_file_is_kept_byte_for_byte(tmp_path: Path, shared_data: Path) -> None:
    """Sixteen transfer syntaxes as they are; a syntax nobody can decode is not accepted."""
    paths = sorted((shared_data / "dicom").glob("*.dcm"))
    metas = {path: split_file(path.read_bytes()) for path in paths}
    classes = {meta[2].rstrip(b"\0").decode() for meta, _ in metas.values() if 2 in meta}
    with running_scp(tmp_path, storage_sop_classes=sorted(classes)) as node:
        for path, (meta, data_set) in metas.items():
            if 0x0010 not in meta:
                continue
            syntax = meta[0x0010].rstrip(b"\0").decode()
            before = len(node.recorder.received)
            answer = push(
                node.host,
                node.port,
                data_set,
                transfer_syntax_uid=syntax,
                sop_class_uid=meta[2].rstrip(b"\0").decode(),
                sop_instance_uid=meta[3].rstrip(b"\0").decode(),
            )
            if syntax not in syntaxes.TRANSFER_SYNTAXES:
                assert answer == "not accepted", path.name
            elif answer == 0x0000:
                received = node.recorder.received[before]
                assert received.digest == hashlib.sha256(data_set).hexdigest(), path.name
                facts = pydicom.dcmread(path, stop_before_pixels=True, force=True)
                assert received.study_instance_uid == facts.StudyInstanceUID
                assert received.series_instance_uid == facts.SeriesInstanceUID
                assert received.modality == facts.get("Modality", "")
            else:
                facts = pydicom.dcmread(path, stop_before_pixels=True, force=True)
                assert not (
                    facts.get("StudyInstanceUID")
                    and facts.get("SeriesInstanceUID")
                    and facts.get("SOPInstanceUID") == facts.file_meta.MediaStorageSOPInstanceUID
                ), (path.name, answer)
        assert len(node.recorder.received) > 40


def test_hostile_files_each_get_an_answer_and_the_node_lives_on(
    tmp_path: Path, shared_data: Path
) -> None:
    import psutil

    paths = sorted((shared_data / "dicom-hostile").glob("*.dcm"))
    assert len(paths) > 100
    with running_scp(tmp_path, storage_sop_classes=["1.2.840.10008.5.1.4.1.1.2"]) as node:
        accepted = [*syntaxes.STORAGE_SOP_CLASSES, "1.2.840.10008.5.1.4.1.1.2"]
        before = psutil.Process().memory_info().rss
        answers = {
            path.name: push_file(node.host, node.port, path, accepted=accepted) for path in paths
        }
        growth = psutil.Process().memory_info().rss - before
        with RawSender(node.host, node.port) as sender:
            sender.associate([(syntaxes.VERIFICATION, [syntaxes.IMPLICIT_VR_LITTLE_ENDIAN])])
            assert sender.echo() == 0x0000
            assert sender.release()
        kept = [received.path for received in node.recorder.received]
    statuses = {0x0000, 0xA900, 0xC000}
    assert {name: answer for name, answer in answers.items() if answer not in statuses} == {}
    assert sorted(tmp_path.iterdir()) == sorted(kept)
    for traversal in ("TC1179_uid_traversal_win", "TC1181_uid_traversal_tmp", "TC0463"):
        (name,) = (name for name in answers if traversal in name)
        assert answers[name] == 0xC000
    assert growth < 64 * 1024 * 1024
