"""What the node sends, against its own SCP and against pynetdicom's."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pynetdicom import AE, evt

from dicomnode.config import DestinationSettings
from dicomnode.dimse import DimseDestination, echo, send_files, syntaxes
from dicomnode.dimse.part_ten import encode_file_meta
from dicomnode.errors import DeliveryRefused, DestinationUnavailable
from dicomnode.ports import Outgoing
from dicomnode.testing.senders import split_file
from tests.integration.dimse_scp import running_scp
from tests.integration.test_dimse_store import INSTANCE, cr_bytes


def destination(port: int, *, timeout: float = 10.0, called: str = "DICOMNODE") -> DimseDestination:
    settings = DestinationSettings(
        name="pacs", ae_title=called, host="127.0.0.1", port=port, timeout_seconds=timeout
    )
    return DimseDestination(settings, "NODE_A")


def write(path: Path, *, syntax: str = syntaxes.EXPLICIT_VR_LITTLE_ENDIAN) -> Path:
    meta = encode_file_meta(
        sop_class_uid=syntaxes.COMPUTED_RADIOGRAPHY,
        sop_instance_uid=INSTANCE,
        transfer_syntax_uid=syntax,
        calling_ae_title="X",
    )
    path.write_bytes(meta + cr_bytes())
    return path


def outgoing(path: Path) -> Outgoing:
    return Outgoing(
        path=path, sop_class_uid=syntaxes.COMPUTED_RADIOGRAPHY, sop_instance_uid=INSTANCE
    )


@contextmanager
def pynetdicom_scp(handlers: Any, contexts: list[tuple[str, str]], **ae: Any) -> Iterator[int]:
    entity = AE("DICOMNODE")
    for name, value in ae.items():
        setattr(entity, name, value)
    for abstract, transfer in contexts:
        entity.add_supported_context(abstract, transfer)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    assert server is not None
    try:
        yield int(server.socket.getsockname()[1])
    finally:
        server.shutdown()


def test_a_document_arrives_byte_for_byte(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm")
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    with running_scp(incoming) as node:
        with destination(node.port).connect([syntaxes.COMPUTED_RADIOGRAPHY]) as session:
            assert session.send(outgoing(path)) == 0x0000
            assert session.send(outgoing(path)) == 0x0000
        received = node.recorder.received[0]
        assert received.calling_ae_title == "NODE_A"
        assert split_file(received.path.read_bytes())[1] == split_file(path.read_bytes())[1]


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xA700, 0xC123])
def test_the_status_of_a_foreign_scp_is_returned(tmp_path: Path, status: int) -> None:
    bodies = []

    def on_store(event: Any) -> int:
        bodies.append(event.request.DataSet.getvalue())
        return status

    contexts = [(syntaxes.COMPUTED_RADIOGRAPHY, syntaxes.EXPLICIT_VR_LITTLE_ENDIAN)]
    path = write(tmp_path / "a.dcm")
    with (
        pynetdicom_scp([(evt.EVT_C_STORE, on_store)], contexts) as port,
        destination(port).connect([syntaxes.COMPUTED_RADIOGRAPHY]) as session,
    ):
        assert session.send(outgoing(path)) == status
    assert bodies == [cr_bytes()]


def test_a_document_whose_context_was_rejected_is_refused_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm")
    with (
        running_scp(tmp_path) as node,
        destination(node.port).connect(["1.2.840.10008.5.1.4.1.1.88.34"]) as session,
        pytest.raises(DeliveryRefused, match=r"Computed Radiography.*was not proposed"),
    ):
        session.send(outgoing(path))
    report = "1.2.840.10008.5.1.4.1.1.88.34"
    contexts = [(report, syntaxes.EXPLICIT_VR_LITTLE_ENDIAN)]
    with (
        pynetdicom_scp([], contexts) as port,
        destination(port).connect([syntaxes.COMPUTED_RADIOGRAPHY, report]) as session,
        pytest.raises(
            DeliveryRefused,
            match=r"pacs \(127.0.0.1:\d+, called AE 'DICOMNODE'\).*Computed Radiography Image "
            "Storage, Explicit VR Little Endian: Abstract Syntax Not Supported",
        ),
    ):
        session.send(outgoing(path))


def test_a_peer_that_takes_only_implicit_vr_gets_the_same_document_in_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm")
    arrived = []

    def keep(event: evt.Event) -> int:
        arrived.append((event.context.transfer_syntax, event.dataset))
        return 0x0000

    contexts = [(syntaxes.COMPUTED_RADIOGRAPHY, syntaxes.IMPLICIT_VR_LITTLE_ENDIAN)]
    with (
        pynetdicom_scp([(evt.EVT_C_STORE, keep)], contexts) as port,
        destination(port).connect([syntaxes.COMPUTED_RADIOGRAPHY]) as session,
    ):
        assert session.send(outgoing(path)) == 0x0000
    ((syntax, dataset),) = arrived
    assert syntax == syntaxes.IMPLICIT_VR_LITTLE_ENDIAN
    assert dataset == dcmread(path)


def test_a_rejection_says_what_to_do(tmp_path: Path) -> None:
    with (
        running_scp(tmp_path, accept_unknown_peers=False) as node,
        pytest.raises(
            DestinationUnavailable, match=r"pacs \(.*calling AE title not recognized; ask"
        ),
        destination(node.port).connect([syntaxes.COMPUTED_RADIOGRAPHY]),
    ):
        pass


def test_a_destination_that_is_away_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with (
        pytest.raises(DestinationUnavailable, match="no association with pacs"),
        destination(port).connect([syntaxes.COMPUTED_RADIOGRAPHY]),
    ):
        pass


def test_a_destination_that_never_answers_is_unavailable_in_time() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(DestinationUnavailable, match=r"no answer within 0.2 s"),
        destination(listener.getsockname()[1], timeout=0.2).connect(["1.2.3"]),
    ):
        pass


def test_a_destination_that_aborts_is_unavailable(tmp_path: Path) -> None:
    def on_store(event: Any) -> int:
        event.assoc.abort()
        return 0

    contexts = [(syntaxes.COMPUTED_RADIOGRAPHY, syntaxes.EXPLICIT_VR_LITTLE_ENDIAN)]
    path = write(tmp_path / "a.dcm")
    with (
        pynetdicom_scp([(evt.EVT_C_STORE, on_store)], contexts) as port,
        pytest.raises(DestinationUnavailable),
        destination(port).connect([syntaxes.COMPUTED_RADIOGRAPHY]) as session,
    ):
        session.send(outgoing(path))


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x02\x00\xff\xff\xff\xff"]
)
def test_a_destination_that_speaks_something_else_is_unavailable(answer: bytes) -> None:
    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(answer)
            connection.recv(65536)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=(listener,))
        server.start()
        port = listener.getsockname()[1]
        with (
            pytest.raises(DestinationUnavailable, match="PDU type"),
            destination(port, timeout=5).connect(["1.2.3"]),
        ):
            pass
        server.join(10)


def test_echo_returns_the_status(tmp_path: Path) -> None:
    with running_scp(tmp_path) as node:
        assert echo("127.0.0.1", node.port, called_ae_title="DICOMNODE") == 0x0000
        with pytest.raises(DestinationUnavailable, match="called AE title not recognized"):
            echo("127.0.0.1", node.port, called_ae_title="ELSE")


def test_send_files_proposes_what_the_files_are_and_reports_each(tmp_path: Path) -> None:
    good = write(tmp_path / "good.dcm")
    unknown = write(tmp_path / "unknown.dcm", syntax="1.2.840.10008.1.2.4.110")
    text = tmp_path / "notes.txt"
    text.write_text("no image")
    incoming = tmp_path / "incoming"
    incoming.mkdir()
    with running_scp(incoming) as node:
        results = {
            result.path.name: result
            for result in send_files(
                "127.0.0.1", node.port, [text, unknown, good], called_ae_title="DICOMNODE"
            )
        }
    assert results["good.dcm"].stored
    assert "Transfer Syntaxes Not Supported" in results["unknown.dcm"].message
    assert "no DICM prefix" in results["notes.txt"].message
    assert not results["notes.txt"].stored
