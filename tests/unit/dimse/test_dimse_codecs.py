"""Command sets and A-ASSOCIATE PDUs, held against pynetdicom's."""

from __future__ import annotations

import contextlib
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom import build_context
from pynetdicom.dsutils import decode as pynetdicom_decode
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
    UserIdentityNegotiation,
)

from dicomnode.dimse import associate, command, syntaxes
from dicomnode.dimse.pdu import encode_reject
from dicomnode.dimse.peer_errors import ProtocolViolation


def foreign_request() -> bytes:
    """What pynetdicom would send, role selection and user identity included."""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = associate.APPLICATION_CONTEXT
    primitive.calling_ae_title = "XRAY1"
    primitive.called_ae_title = "NODE"
    first = build_context(syntaxes.COMPUTED_RADIOGRAPHY, list(syntaxes.TRANSFER_SYNTAXES))
    first.context_id = 1
    second = build_context(syntaxes.VERIFICATION)
    second.context_id = 255
    primitive.presentation_context_definition_list = [first, second]
    maximum = MaximumLengthNotification()
    maximum.maximum_length_received = 16382
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = "1.2.3"
    role = SCP_SCU_RoleSelectionNegotiation()
    role.sop_class_uid = syntaxes.COMPUTED_RADIOGRAPHY
    role.scu_role, role.scp_role = True, False
    identity = UserIdentityNegotiation()
    identity.user_identity_type = 1
    identity.primary_field = b"user"
    primitive.user_information = [maximum, implementation, role, identity]
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(primitive)
    return pdu.encode()


def test_a_foreign_request_is_understood() -> None:
    request = associate.decode_request(foreign_request()[6:])
    assert request.calling_ae_title == "XRAY1"
    assert request.called_ae_title == "NODE"
    assert request.application_context == associate.APPLICATION_CONTEXT
    assert request.maximum_length == 16382
    assert [context.context_id for context in request.contexts] == [1, 255]
    assert request.contexts[0].transfer_syntaxes == syntaxes.TRANSFER_SYNTAXES


def test_our_answer_is_understood() -> None:
    request = associate.decode_request(foreign_request()[6:])
    encoded = associate.encode_accept(
        request,
        [
            associate.ContextAnswer(
                context_id=1, result=0, transfer_syntax=syntaxes.EXPLICIT_VR_LITTLE_ENDIAN
            ),
            associate.ContextAnswer(
                context_id=255, result=3, transfer_syntax=syntaxes.IMPLICIT_VR_LITTLE_ENDIAN
            ),
        ],
        maximum_length=131072,
        implementation_class_uid="1.2.3.4",
        implementation_version_name="NODE",
    )
    pdu = A_ASSOCIATE_AC()
    pdu.decode(encoded)
    contexts = {item.context_id: item for item in pdu.presentation_context}
    assert contexts[1].result == 0
    assert contexts[1].transfer_syntax == syntaxes.EXPLICIT_VR_LITTLE_ENDIAN
    assert contexts[255].result == 3
    assert pdu.user_information.maximum_length == 131072
    answers, maximum_length = associate.decode_accept(encoded[6:])
    assert [answer.result for answer in answers] == [0, 3]
    assert maximum_length == 131072


def test_our_request_is_understood() -> None:
    encoded = associate.encode_request(
        called_ae_title="PACS",
        calling_ae_title="NODE",
        contexts=associate.decode_request(foreign_request()[6:]).contexts,
        maximum_length=65536,
        implementation_class_uid="1.2.3.4",
        implementation_version_name="NODE",
    )
    pdu = A_ASSOCIATE_RQ()
    pdu.decode(encoded)
    assert pdu.called_ae_title.strip() == "PACS"
    assert [item.context_id for item in pdu.presentation_context] == [1, 255]
    assert pdu.encode() == encoded


def test_our_rejection_is_understood() -> None:
    pdu = A_ASSOCIATE_RJ()
    pdu.decode(encode_reject(2, 3, 2))
    assert pdu.reason_str == "Local limit exceeded"


@given(st.binary(max_size=400))
def test_any_bytes_are_a_request_or_a_violation(data: bytes) -> None:
    with contextlib.suppress(ProtocolViolation):
        associate.decode_request(data)


@given(st.integers(0, 400), st.binary(min_size=1, max_size=4))
def test_a_damaged_request_is_a_request_or_a_violation(position: int, damage: bytes) -> None:
    data = bytearray(foreign_request()[6:])
    data[position : position + len(damage)] = damage
    try:
        request = associate.decode_request(bytes(data))
    except ProtocolViolation:
        return
    assert all(context.context_id % 2 == 1 for context in request.contexts)


NUMBER = st.integers(0, 0xFFFF)
TEXT = st.text("0123456789.", min_size=1, max_size=64)


@given(
    st.builds(
        command.CommandSet,
        command_field=NUMBER,
        command_data_set_type=NUMBER,
        message_id=st.none() | NUMBER,
        status=st.none() | NUMBER,
        affected_sop_class_uid=st.none() | TEXT,
        affected_sop_instance_uid=st.none() | TEXT,
        action_type_id=st.none() | NUMBER,
    )
)
def test_a_command_set_is_read_back_here_and_by_pynetdicom(sent: command.CommandSet) -> None:
    encoded = command.encode(sent)
    assert command.decode(encoded) == sent
    foreign = pynetdicom_decode(BytesIO(encoded), True, True)
    assert foreign.CommandField == sent.command_field
    assert foreign.CommandGroupLength == len(encoded) - 12
    assert foreign.get("AffectedSOPInstanceUID") == sent.affected_sop_instance_uid


@given(st.binary(max_size=100))
def test_any_bytes_are_a_command_set_or_a_violation(data: bytes) -> None:
    with contextlib.suppress(ProtocolViolation):
        command.decode(data)


@pytest.mark.parametrize("data", [b"", b"\0" * 8, b"\x08\0\x16\0\0\0\0\0"])
def test_a_command_set_without_a_command_field_is_a_violation(data: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        command.decode(data)
