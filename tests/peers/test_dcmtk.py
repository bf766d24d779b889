"""DCMTK's tools as modalities and as a PACS."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomnode.dimse import echo, send_files, syntaxes
from dicomnode.testing.senders import split_file
from tests.conftest import require_program
from tests.integration.dimse_scp import RunningScp, running_scp


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [require_program(program), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RunningScp]:
    peers = [{"name": "xray1", "ae_title": "XRAY1", "host": "127.0.0.1"}]
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    with running_scp(incoming, accept_unknown_peers=False, peers=peers) as running:
        yield running


def test_echoscu_is_answered(node: RunningScp) -> None:
    done = run("echoscu", "-aet", "XRAY1", "-aec", "DICOMNODE", "127.0.0.1", str(node.port))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("calling", "called", "reason"),
    [
        ("STRANGER", "DICOMNODE", "Calling AE Title Not Recognized"),
        ("XRAY1", "OTHER", "Called AE Title Not Recognized"),
    ],
)
def test_echoscu_is_told_why_it_is_rejected(
    node: RunningScp, calling: str, called: str, reason: str
) -> None:
    done = run("echoscu", "-aet", calling, "-aec", called, "127.0.0.1", str(node.port))
    assert done.returncode != 0
    assert reason in done.stderr


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("chest_gdcm-CR-MONO1-10-chest.dcm", "-xe"),
        ("chest_gdcm-CR-MONO1-10-chest.dcm", "-xi"),
        ("chest_966_fixed.dcm", "-xv"),
        ("ts_image_dfl.dcm", "-xd"),
        ("chest_Monochrome1-Jpeg.dcm", "-xy"),
        ("chest_RG1_JLSN.dcm", "-xu"),
        ("xray_RG3_RLE.dcm", "-xr"),
        ("xray_RG2_J2KR.dcm", "-xv"),
        ("xray_RG3_JPLY.dcm", "-xx"),
    ],
)
def test_storescu_stores_in_the_files_own_transfer_syntax(
    node: RunningScp, shared_data: Path, name: str, option: str
) -> None:
    path = shared_data / "dicom" / name
    syntax = split_file(path.read_bytes())[0][0x0010].rstrip(b"\0").decode()
    done = run(
        "storescu",
        option,
        "-aet",
        "XRAY1",
        "-aec",
        "DICOMNODE",
        "127.0.0.1",
        str(node.port),
        str(path),
    )
    assert done.returncode == 0, done.stderr
    (received,) = node.recorder.received
    if option not in ("-xe", "-xi"):
        assert received.transfer_syntax_uid == syntax
    checked = run("dcmdump", "+P", "SOPInstanceUID", str(received.path))
    assert received.sop_instance_uid in checked.stdout


def test_dcmsend_sends_a_folder_over_one_association(node: RunningScp, shared_data: Path) -> None:
    names = ("chest_966_fixed.dcm", "chest_RG1_J2KI.dcm", "xray_RG3_JPLL.dcm", "xray_RG3_RLE.dcm")
    paths = [str(shared_data / "dicom" / name) for name in names]
    done = run("dcmsend", "-aet", "XRAY1", "-aec", "DICOMNODE", "127.0.0.1", str(node.port), *paths)
    assert done.returncode == 0, done.stderr
    assert len(node.recorder.received) == 4


def test_storescu_is_told_when_there_is_no_room(tmp_path: Path, shared_data: Path) -> None:
    with running_scp(tmp_path, has_room=lambda: False) as node:
        path = shared_data / "dicom" / "chest_dx_image.dcm"
        done = run("storescu", "-v", "-aec", "DICOMNODE", "127.0.0.1", str(node.port), str(path))
    assert "OutOfResources" in (done.stdout + done.stderr).replace(" ", "")


def test_an_scu_beyond_the_limit_is_told_so(tmp_path: Path) -> None:
    with running_scp(tmp_path, maximum_associations=1) as node:
        from dicomnode.testing.senders import RawSender

        with RawSender(node.host, node.port) as held:
            held.associate([(syntaxes.VERIFICATION, [syntaxes.IMPLICIT_VR_LITTLE_ENDIAN])])
            done = run("echoscu", "-aec", "DICOMNODE", "127.0.0.1", str(node.port))
    assert "Local Limit Exceeded" in done.stderr


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """DCMTK's storescp; its first line in debug mode comes when it listens."""
    folder = tmp_path / "pacs"
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with subprocess.Popen(
        [require_program("storescp"), "+xa", "-aet", "PACS", "-od", str(folder), str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            _await(port)
            yield port, folder
        finally:
            process.terminate()
            process.wait(10)


def _await(port: int) -> None:
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        threading.Event().wait(0.05)
    pytest.fail(f"storescp does not listen on {port}")


def test_storescp_takes_what_we_send(storescp: tuple[int, Path], shared_data: Path) -> None:
    port, folder = storescp
    assert echo("127.0.0.1", port, called_ae_title="PACS") == 0x0000
    names = ("chest_966_fixed.dcm", "chest_RG1_JLSN.dcm", "xray_RG2_J2KR.dcm", "sr_sr.dcm")
    paths = [shared_data / "dicom" / name for name in names]
    results = list(send_files("127.0.0.1", port, paths, called_ae_title="PACS"))
    assert [result.status for result in results] == [0, 0, 0, 0], results
    assert len(list(folder.iterdir())) == 4
