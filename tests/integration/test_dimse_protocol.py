"""Conversations with hostile and unlucky peers (PS3.8 9.2)."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomnode.dimse import associate, syntaxes
from dicomnode.dimse import command as command_sets
from dicomnode.dimse.command import CommandSet
from dicomnode.dimse.pdu import A_RELEASE_RP, A_RELEASE_RQ
from dicomnode.dimse.scp import LOBBY
from dicomnode.testing.senders import ABORTED, REJECTED, RawSender, fragment, push
from tests.integration.dimse_scp import RunningScp, running_scp
from tests.integration.test_dimse_store import INSTANCE, cr_bytes

A_ABORT = 0x07
VERIFICATION = [(syntaxes.VERIFICATION, [syntaxes.IMPLICIT_VR_LITTLE_ENDIAN])]
CR = [(syntaxes.COMPUTED_RADIOGRAPHY, [syntaxes.EXPLICIT_VR_LITTLE_ENDIAN])]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningScp]:
    with running_scp(tmp_path_factory.mktemp("incoming")) as running:
        yield running


def store_command(**fields: object) -> bytes:
    values: dict[str, object] = {
        "command_field": 1,
        "message_id": 1,
        "affected_sop_class_uid": syntaxes.COMPUTED_RADIOGRAPHY,
        "affected_sop_instance_uid": INSTANCE,
        "command_data_set_type": 1,
    } | fields
    return command_sets.encode(CommandSet(**values))  # type: ignore[arg-type]


def echo_succeeds(node: RunningScp) -> bool:
    with RawSender(node.host, node.port) as sender:
        return (
            sender.associate(VERIFICATION) == "accepted"
            and sender.echo() == 0
            and (sender.release())
        )


RQ = associate.encode_request(
    called_ae_title="DICOMNODE",
    calling_ae_title="TESTER",
    contexts=[
        associate.ProposedContext(
            context_id=1,
            abstract_syntax=syntaxes.COMPUTED_RADIOGRAPHY,
            transfer_syntaxes=(syntaxes.EXPLICIT_VR_LITTLE_ENDIAN,),
        )
    ],
    maximum_length=16384,
    implementation_class_uid="1.2.3",
    implementation_version_name="X",
)


@pytest.mark.parametrize(
    ("first_bytes", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: node\r\n\r\n", 1),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 1),
        (struct.pack(">BxI", 0x04, 8) + bytes(8), 2),
        (A_RELEASE_RQ, 2),
        (struct.pack(">BxI", 0x01, 0xFFFFFFFF), 6),
        (struct.pack(">BxI", 0x01, 4) + bytes(4), 6),
        (RQ.replace(b"\x30\x00\x00", b"\x30\x00\xff", 1), 6),
        (RQ[:2] + struct.pack(">I", len(RQ) - 6 - 3) + RQ[6:-3], 6),
        (RQ[:74] + b"\x20\x00\x00\x04\x02\x00\x00\x00" + b"\0" * (len(RQ) - 82), 6),
    ],
)
def test_what_is_no_association_request_is_aborted_by_the_provider(
    node: RunningScp, first_bytes: bytes, reason: int
) -> None:
    with RawSender(node.host, node.port) as sender:
        sender.send(first_bytes)
        kind, body = sender.receive()
        assert (kind, body[2], body[3]) == (A_ABORT, 2, reason)
        assert sender.receive() == (0, b"")
    assert echo_succeeds(node)


@pytest.mark.parametrize(
    ("pdus", "reason"),
    [
        pytest.param(RQ, 2, id="a second A-ASSOCIATE-RQ"),
        pytest.param(A_RELEASE_RP, 2, id="A-RELEASE-RP out of nothing"),
        pytest.param(struct.pack(">BxI", 0x99, 4) + bytes(4), 1, id="an unknown PDU type"),
        pytest.param(struct.pack(">BxI", 4, 0xFFFFFFFF), 6, id="a PDU of 4 GiB"),
        pytest.param(struct.pack(">BxI", 4, 131072 + 7), 6, id="a PDU beyond the maximum"),
        pytest.param(struct.pack(">BxIIBB", 4, 6, 0, 1, 3), 6, id="PDV length 0"),
        pytest.param(struct.pack(">BxIIBB", 4, 6, 1, 1, 3), 6, id="PDV length 1"),
        pytest.param(struct.pack(">BxIIBB", 4, 6, 0xFFFFFFFF, 1, 3), 6, id="PDV of 4 GiB"),
        pytest.param(struct.pack(">BxIIBB", 4, 6, 3, 1, 3), 6, id="PDV longer than its PDU"),
        pytest.param(struct.pack(">BxI", 4, 5) + bytes(5), 6, id="a PDU of 5 bytes"),
        pytest.param(fragment(1, b"x"), 5, id="a data set without a command"),
        pytest.param(fragment(3, store_command(), command=True), 6, id="an unknown context"),
        pytest.param(fragment(0, store_command(), command=True), 6, id="context 0"),
        pytest.param(fragment(1, b"", command=True), 6, id="an empty command set"),
        pytest.param(fragment(1, b"\0" * 11, command=True), 6, id="an odd command set"),
        pytest.param(fragment(1, bytes(16385), command=True, last=False), 6, id="oversized"),
        pytest.param(
            fragment(1, store_command(), command=True) + fragment(1, b"x", command=True),
            5,
            id="a command within a data set",
        ),
        pytest.param(
            fragment(1, store_command(), command=True) + fragment(3, b"x"),
            5,
            id="another context within a message",
        ),
        pytest.param(
            fragment(1, command_sets.encode(CommandSet(command_field=0x8001)), command=True),
            0,
            id="a response to nothing",
        ),
    ],
)
def test_a_violation_within_an_association_is_aborted_by_the_provider(
    node: RunningScp, pdus: bytes, reason: int
) -> None:
    with RawSender(node.host, node.port) as sender:
        assert sender.associate(CR) == "accepted"
        sender.send(pdus)
        kind, body = sender.receive()
        assert (kind, body[2], body[3]) == (A_ABORT, 2, reason)
        assert sender.receive() == (0, b"")
    assert list(node.incoming.iterdir()) == []
    assert echo_succeeds(node)


@pytest.mark.parametrize("cut", [1, 5, 6, 11, 12, 40])
def test_a_connection_that_breaks_within_a_pdu_leaves_nothing(node: RunningScp, cut: int) -> None:
    with RawSender(node.host, node.port) as sender:
        sender.associate(CR)
        sender.send(fragment(1, store_command(), command=True))
        sender.send(fragment(1, cr_bytes())[:cut])
        sender.socket.shutdown(socket.SHUT_WR)
        assert sender.receive() == (0, b"")
    assert list(node.incoming.iterdir()) == []


def test_a_release_within_a_message_is_answered_and_the_message_dropped(node: RunningScp) -> None:
    with RawSender(node.host, node.port) as sender:
        sender.associate(CR)
        sender.send(fragment(1, store_command(), command=True))
        sender.send(fragment(1, cr_bytes(), last=False))
        assert sender.release()
        assert sender.receive() == (0, b"")
    assert list(node.incoming.iterdir()) == []


def test_empty_fragments_and_several_values_in_one_pdu_are_fine(node: RunningScp) -> None:
    command, data = store_command(), cr_bytes()
    items = b"".join(
        fragment(1, piece, command=is_command, last=last)[6:]
        for piece, is_command, last in (
            (b"", True, False),
            (command[:9], True, False),
            (command[9:], True, True),
            (b"", False, False),
            (data, False, False),
            (b"", False, True),
        )
    )
    with RawSender(node.host, node.port) as sender:
        sender.associate(CR)
        sender.send(struct.pack(">BxI", 4, len(items)) + items)
        assert sender.status() == 0x0000
    received = node.recorder.received.pop()
    assert received.path.read_bytes().endswith(data)
    received.path.unlink()


def test_an_unknown_request_is_answered_as_unrecognized_operation(node: RunningScp) -> None:
    with RawSender(node.host, node.port) as sender:
        sender.associate(CR)
        sender.send(
            fragment(1, store_command(command_field=0x0020), command=True) + fragment(1, b"query")
        )
        assert sender.status() == 0x0211
        sender.send(
            fragment(
                1, store_command(command_field=0x0FFF, command_data_set_type=0x0101), command=True
            )
        )
        assert sender.store(cr_bytes(), sop_instance_uid=INSTANCE) == 0x0000
    node.recorder.received.pop().path.unlink()


def test_a_c_store_without_a_data_set_cannot_be_understood(node: RunningScp) -> None:
    with RawSender(node.host, node.port) as sender:
        sender.associate(CR)
        sender.send(fragment(1, store_command(command_data_set_type=0x0101), command=True))
        assert sender.status() == 0xC000


def test_answers_fit_the_peers_smallest_pdu(node: RunningScp) -> None:
    with RawSender(node.host, node.port) as sender:
        sender.associate(VERIFICATION, maximum_length=70)
        sender.send(
            fragment(
                1,
                command_sets.encode(
                    CommandSet(
                        command_field=0x30,
                        message_id=7,
                        affected_sop_class_uid=syntaxes.VERIFICATION,
                    )
                ),
                command=True,
            )
        )
        kind, body = sender.receive()
        assert kind == 4
        assert len(body) <= 70


@pytest.mark.parametrize(
    ("settings", "titles", "rejection"),
    [
        ({"accept_unknown_peers": False}, {}, (1, 1, 3)),
        ({}, {"called_ae_title": "SOMEONE"}, (1, 1, 7)),
        ({}, {"calling_ae_title": "BACK\\SLASH"}, (1, 1, 3)),
        (
            {"peers": [{"name": "x", "ae_title": "TESTER", "host": "10.9.8.7"}]},
            {},
            (1, 1, 3),
        ),
    ],
)
def test_strangers_are_rejected_with_the_standards_reason(
    tmp_path: Path,
    settings: dict[str, object],
    titles: dict[str, str],
    rejection: tuple[int, int, int],
) -> None:
    with running_scp(tmp_path, **settings) as node, RawSender(node.host, node.port) as sender:
        assert sender.associate(VERIFICATION, **titles) == REJECTED
        assert sender.rejection == rejection


def test_metrics_name_known_peers_only(tmp_path: Path) -> None:
    peers = [{"name": "x", "ae_title": "XRAY1", "host": "127.0.0.1"}]
    with running_scp(tmp_path, peers=peers) as node:
        for calling in ("XRAY1", "RANDOM1", "RANDOM2"):
            assert push(node.host, node.port, b"nonsense", calling_ae_title=calling) == 0xC000
        for label, expected in (("XRAY1", 1), ("unknown", 2), ("RANDOM1", 0)):
            assert expected == node.count(
                "dicomnode_instances_received_total", calling_ae=label, outcome="cannot_understand"
            )


def test_associations_beyond_the_limit_are_rejected_until_one_ends(tmp_path: Path) -> None:
    with (
        running_scp(tmp_path, maximum_associations=2) as node,
        RawSender(node.host, node.port) as one,
        RawSender(node.host, node.port) as two,
    ):
        assert one.associate(VERIFICATION) == "accepted"
        assert two.associate(VERIFICATION) == "accepted"
        assert node.count("dicomnode_associations") == 2
        with RawSender(node.host, node.port) as three:
            assert three.associate(VERIFICATION) == REJECTED
            assert three.rejection == (2, 3, 2)
        assert one.release()
        assert one.receive() == (0, b"")
        with RawSender(node.host, node.port) as four:
            assert four.associate(VERIFICATION) == "accepted"


def test_silent_connections_do_not_keep_a_speaking_one_out(tmp_path: Path) -> None:
    with running_scp(tmp_path, maximum_associations=1) as node:
        silent = [socket.create_connection((node.host, node.port)) for _ in range(3 * LOBBY)]
        try:
            assert echo_succeeds(node)
        finally:
            for connection in silent:
                connection.close()


@pytest.mark.parametrize("first_bytes", [b"", RQ[:20]])
def test_artim_ends_a_connection_that_does_not_ask(tmp_path: Path, first_bytes: bytes) -> None:
    with (
        running_scp(tmp_path, artim_timeout_seconds=0.2) as node,
        RawSender(node.host, node.port) as sender,
    ):
        sender.send(first_bytes)
        assert sender.receive()[0] in (A_ABORT, 0)
        assert node.count("dicomnode_associations_rejected_total", reason="silent") == 1


@pytest.mark.parametrize("pdus", [b"", fragment(1, store_command(), command=True)])
def test_an_association_that_falls_silent_is_aborted(tmp_path: Path, pdus: bytes) -> None:
    with (
        running_scp(tmp_path, idle_timeout_seconds=0.2) as node,
        RawSender(node.host, node.port) as sender,
    ):
        sender.associate(CR)
        sender.send(pdus)
        kind, body = sender.receive()
        assert (kind, body[2]) == (A_ABORT, 0)
        assert sender.receive() == (0, b"")
        assert list(tmp_path.iterdir()) == []


def test_a_probe_that_connects_and_closes_is_no_event(tmp_path: Path) -> None:
    with running_scp(tmp_path) as node:
        socket.create_connection((node.host, node.port)).close()
        assert echo_succeeds(node)
        assert node.count("dicomnode_associations_rejected_total", reason="connection_lost") == 0


def test_stop_lets_a_running_store_finish_and_aborts_idle_peers(tmp_path: Path) -> None:
    with running_scp(tmp_path) as node:
        with RawSender(node.host, node.port) as idle, RawSender(node.host, node.port) as busy:
            idle.associate(VERIFICATION)
            busy.associate(CR)
            node.recorder.gate.clear()
            answers: list[object] = []
            storing = threading.Thread(
                target=lambda: answers.append(busy.store(cr_bytes(), sop_instance_uid=INSTANCE))
            )
            storing.start()
            assert node.recorder.entered.wait(10)
            stopping = threading.Thread(target=node.scp.stop, args=(10.0,))
            stopping.start()
            assert idle.receive()[0] == A_ABORT
            assert not node.scp.listening
            node.recorder.gate.set()
            storing.join(10)
            stopping.join(10)
            assert answers == [0x0000]
            assert busy.status() == ABORTED
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((node.host, node.scp.port))


def test_stop_cuts_what_does_not_finish(tmp_path: Path) -> None:
    with running_scp(tmp_path) as node, RawSender(node.host, node.port) as sender:
        sender.associate(CR)
        sender.send(fragment(1, store_command(), command=True))
        sender.send(fragment(1, cr_bytes(), last=False))
        sender.send(b"")
        node.scp.stop(0.2)
        assert sender.receive()[0] in (0, A_ABORT)
    assert list(tmp_path.iterdir()) == []
