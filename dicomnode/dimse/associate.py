"""A-ASSOCIATE: what a peer proposes and what it is told (PS3.8 9.3.2, 9.3.3, Annex D)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from dicomnode.dimse.pdu import HEADER, PduType
from dicomnode.dimse.peer_errors import AbortReason, ProtocolViolation

APPLICATION_CONTEXT: Final = "1.2.840.10008.3.1.1.1"
PROTOCOL_VERSION: Final = 0x0001
MAXIMUM_BYTES: Final = 256 * 1024
"""128 contexts with 20 transfer syntaxes each take about 80 KiB."""

_FIXED = struct.Struct(">Hxx16s16s32x")
_ITEM = struct.Struct(">BxH")

_APPLICATION_CONTEXT_ITEM: Final = 0x10
_CONTEXT_RQ_ITEM: Final = 0x20
_CONTEXT_AC_ITEM: Final = 0x21
_ABSTRACT_SYNTAX_ITEM: Final = 0x30
_TRANSFER_SYNTAX_ITEM: Final = 0x40
_USER_INFORMATION_ITEM: Final = 0x50
_MAXIMUM_LENGTH_ITEM: Final = 0x51
_IMPLEMENTATION_CLASS_UID_ITEM: Final = 0x52
_IMPLEMENTATION_VERSION_NAME_ITEM: Final = 0x55


@dataclass(frozen=True, kw_only=True)
class ProposedContext:
    """A presentation context as proposed (PS3.8 9.3.2.2)."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class AcceptedContext:
    """A presentation context that may be used."""

    context_id: int
    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True, kw_only=True)
class ContextAnswer:
    """The result for one proposed context (PS3.8 Table 9-18): 0 acceptance, 3 abstract
    syntax not supported, 4 transfer syntaxes not supported."""

    context_id: int
    result: int
    transfer_syntax: str


@dataclass(frozen=True, kw_only=True)
class AssociateRequest:
    """An A-ASSOCIATE-RQ."""

    protocol_version: int
    called_ae_title: str
    calling_ae_title: str
    application_context: str
    contexts: tuple[ProposedContext, ...]
    maximum_length: int
    """Of the P-DATA-TF PDUs that the peer can receive; 0: unlimited."""
    raw_ae_titles: bytes
    """Both fields as sent: the answer repeats them (PS3.8 9.3.3)."""


def decode_request(data: bytes) -> AssociateRequest:
    """The request in `data`, which is the PDU without its header.

    Items that this node has no use for (role selection, user identity, extended
    negotiation) are skipped, which declines them. Raises `ProtocolViolation`.
    """
    if len(data) < _FIXED.size:
        raise _violation(f"is {len(data)} bytes long, expected at least {_FIXED.size}")
    version, called, calling = _FIXED.unpack_from(data)
    application_context = ""
    contexts: dict[int, ProposedContext] = {}
    maximum_length = 0
    for kind, body in _items(data[_FIXED.size :]):
        if kind == _APPLICATION_CONTEXT_ITEM:
            application_context = _uid_text(body)
        elif kind == _CONTEXT_RQ_ITEM:
            context = _decode_context(body)
            if context.context_id in contexts:
                raise _violation(f"proposes context {context.context_id} twice")
            contexts[context.context_id] = context
        elif kind == _USER_INFORMATION_ITEM:
            maximum_length = _decode_maximum_length(body)
    if not contexts:
        raise _violation("proposes no presentation context")
    return AssociateRequest(
        protocol_version=version,
        called_ae_title=_ae_title(called),
        calling_ae_title=_ae_title(calling),
        application_context=application_context,
        contexts=tuple(contexts.values()),
        maximum_length=maximum_length,
        raw_ae_titles=called + calling,
    )


def encode_accept(
    request: AssociateRequest,
    answers: Sequence[ContextAnswer],
    *,
    maximum_length: int,
    implementation_class_uid: str,
    implementation_version_name: str,
) -> bytes:
    """The A-ASSOCIATE-AC that answers `request` with one answer per proposed context."""
    body = b"".join(
        [
            struct.pack(">Hxx", PROTOCOL_VERSION),
            request.raw_ae_titles,
            bytes(32),
            _item(_APPLICATION_CONTEXT_ITEM, APPLICATION_CONTEXT.encode()),
            *(_encode_answer(answer) for answer in answers),
            _user_information(
                maximum_length, implementation_class_uid, implementation_version_name
            ),
        ]
    )
    return HEADER.pack(PduType.A_ASSOCIATE_AC, len(body)) + body


def encode_request(
    *,
    called_ae_title: str,
    calling_ae_title: str,
    contexts: Sequence[ProposedContext],
    maximum_length: int,
    implementation_class_uid: str,
    implementation_version_name: str,
) -> bytes:
    """An A-ASSOCIATE-RQ (PS3.8 9.3.2). The AE titles are valid (PS3.5 6.2)."""
    body = b"".join(
        [
            struct.pack(">Hxx", PROTOCOL_VERSION),
            called_ae_title.encode("ascii").ljust(16),
            calling_ae_title.encode("ascii").ljust(16),
            bytes(32),
            _item(_APPLICATION_CONTEXT_ITEM, APPLICATION_CONTEXT.encode()),
            *(_encode_proposal(context) for context in contexts),
            _user_information(
                maximum_length, implementation_class_uid, implementation_version_name
            ),
        ]
    )
    return HEADER.pack(PduType.A_ASSOCIATE_RQ, len(body)) + body


def decode_accept(data: bytes) -> tuple[tuple[ContextAnswer, ...], int]:
    """The answers in an A-ASSOCIATE-AC (without its header), and the peer's maximum length.

    Raises `ProtocolViolation`.
    """
    if len(data) < _FIXED.size:
        raise _violation(f"is {len(data)} bytes long, expected at least {_FIXED.size}")
    answers = []
    maximum_length = 0
    for kind, body in _items(data[_FIXED.size :]):
        if kind == _CONTEXT_AC_ITEM:
            answers.append(_decode_answer(body))
        elif kind == _USER_INFORMATION_ITEM:
            maximum_length = _decode_maximum_length(body)
    return tuple(answers), maximum_length


def _encode_proposal(context: ProposedContext) -> bytes:
    body = bytes((context.context_id, 0, 0, 0))
    body += _item(_ABSTRACT_SYNTAX_ITEM, context.abstract_syntax.encode())
    for syntax in context.transfer_syntaxes:
        body += _item(_TRANSFER_SYNTAX_ITEM, syntax.encode())
    return _item(_CONTEXT_RQ_ITEM, body)


def _decode_answer(body: bytes) -> ContextAnswer:
    if len(body) < 4:
        raise _violation("holds a presentation context that is too short")
    syntaxes = [_uid_text(value) for kind, value in _items(body[4:])]
    return ContextAnswer(
        context_id=body[0], result=body[2], transfer_syntax=syntaxes[0] if syntaxes else ""
    )


def _user_information(maximum_length: int, class_uid: str, version_name: str) -> bytes:
    return _item(
        _USER_INFORMATION_ITEM,
        _item(_MAXIMUM_LENGTH_ITEM, struct.pack(">I", maximum_length))
        + _item(_IMPLEMENTATION_CLASS_UID_ITEM, class_uid.encode())
        + _item(_IMPLEMENTATION_VERSION_NAME_ITEM, version_name.encode()),
    )


def _decode_context(body: bytes) -> ProposedContext:
    if len(body) < 4:
        raise _violation("holds a presentation context that is too short")
    context_id = body[0]
    if context_id % 2 == 0:
        raise _violation(f"proposes context {context_id}; context IDs are odd (PS3.8 9.3.2.2)")
    abstract_syntaxes = []
    transfer_syntaxes = []
    for kind, value in _items(body[4:]):
        if kind == _ABSTRACT_SYNTAX_ITEM:
            abstract_syntaxes.append(_uid_text(value))
        elif kind == _TRANSFER_SYNTAX_ITEM:
            transfer_syntaxes.append(_uid_text(value))
    if len(abstract_syntaxes) != 1:
        raise _violation(
            f"names {len(abstract_syntaxes)} abstract syntaxes in context {context_id}, expected 1"
        )
    return ProposedContext(
        context_id=context_id,
        abstract_syntax=abstract_syntaxes[0],
        transfer_syntaxes=tuple(transfer_syntaxes),
    )


def _decode_maximum_length(body: bytes) -> int:
    for kind, value in _items(body):
        if kind == _MAXIMUM_LENGTH_ITEM:
            if len(value) != 4:
                raise _violation(f"holds a maximum length of {len(value)} bytes, expected 4")
            return int.from_bytes(value, "big")
    return 0


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(data):
        if position + _ITEM.size > len(data):
            raise _violation("ends within the header of an item")
        kind, length = _ITEM.unpack_from(data, position)
        position += _ITEM.size
        if length > len(data) - position:
            raise _violation(f"holds an item 0x{kind:02X} that is longer than what is left")
        yield kind, data[position : position + length]
        position += length


def _encode_answer(answer: ContextAnswer) -> bytes:
    body = bytes((answer.context_id, 0, answer.result, 0))
    return _item(
        _CONTEXT_AC_ITEM, body + _item(_TRANSFER_SYNTAX_ITEM, answer.transfer_syntax.encode())
    )


def _item(kind: int, body: bytes) -> bytes:
    return _ITEM.pack(kind, len(body)) + body


def _uid_text(value: bytes) -> str:
    return value.decode("ascii", "replace").rstrip("\0 ")


def _ae_title(value: bytes) -> str:
    return value.decode("ascii", "replace").strip(" \0")


def _violation(finding: str) -> ProtocolViolation:
    return ProtocolViolation(
        AbortReason.INVALID_PDU_PARAMETER_VALUE, f"the A-ASSOCIATE PDU {finding} (PS3.8 9.3)"
    )
