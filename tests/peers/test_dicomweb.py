"""Delivery by STOW-RS: to Orthanc, and to servers that answer badly."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from pydicom import dcmread

from dicomnode.config import DestinationSettings
from dicomnode.dicomweb import DicomwebDestination
from dicomnode.errors import DestinationBusy, DestinationUnavailable
from dicomnode.ports import Outgoing
from dicomnode.status import StatusCategory, categorise
from dicomnode.testing.phantoms import part10_bytes, phantom_dataset
from tests.acceptance.node import free_ports
from tests.peers.orthanc import PLUGINS, running_orthanc


def destination(url: str, **settings: object) -> DicomwebDestination:
    return DicomwebDestination(
        DestinationSettings(name="pacs", kind="dicomweb", url=url, timeout_seconds=5, **settings)
    )


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Outgoing:
    dataset = phantom_dataset(1, True, rows=256, columns=256, sop_class="SC")
    path = tmp_path_factory.mktemp("document") / "document.dcm"
    path.write_bytes(part10_bytes(dataset))
    return Outgoing(
        path=path,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
    )


def send(target: DicomwebDestination, document: Outgoing) -> int:
    with target.connect([document.sop_class_uid]) as session:
        return session.send(document)


def test_a_document_arrives_at_orthanc_and_again_is_stored_once(
    tmp_path: Path, document: Outgoing
) -> None:
    with running_orthanc(tmp_path) as orthanc:
        if not list(PLUGINS.glob("libOrthancDicomWeb.so*")):
            pytest.skip("Orthanc has no DICOMweb plugin; `make peers` installs it")
        target = destination(orthanc.dicomweb_url)
        for _ in range(2):
            assert categorise(send(target, document)) is StatusCategory.STORED
        (instance,) = orthanc.get("/instances")
        (tmp_path / "arrived.dcm").write_bytes(orthanc.file(instance))
        assert dcmread(tmp_path / "arrived.dcm") == dcmread(document.path)


@contextmanager
def answering(status: int) -> Iterator[str]:
    """A server that answers every POST with one status."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/dicom-web"
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()


@pytest.mark.parametrize(
    ("status", "error"),
    [(503, DestinationBusy), (429, DestinationBusy), (401, DestinationUnavailable)],
)
def test_a_passing_answer_is_tried_again(
    document: Outgoing, status: int, error: type[Exception]
) -> None:
    with answering(status) as url, pytest.raises(error, match=str(status)):
        send(destination(url), document)


def test_a_refusal_for_good_is_a_refusal(document: Outgoing) -> None:
    with answering(400) as url:
        assert categorise(send(destination(url), document)) is StatusCategory.REFUSED


def test_a_server_that_is_away_is_unavailable_and_its_password_is_not_told(
    document: Outgoing,
) -> None:
    (port,) = free_ports(1)
    target = destination(f"http://127.0.0.1:{port}", username="u", password="geheim")
    with pytest.raises(DestinationUnavailable) as caught:
        send(target, document)
    assert "geheim" not in str(caught.value)
