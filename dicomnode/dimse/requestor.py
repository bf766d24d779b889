"""One association that this node requests: the upper layer's requestor (PS3.8 9.2).

Blocking, in the caller's thread; every wait is bounded by the timeout. Raises what
`peer_errors` holds; `scu` says it in the words of the destination.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final

from dicomnode.dimse import associate
from dicomnode.dimse import command as command_sets
from dicomnode.dimse.associate import AcceptedContext, ProposedContext
from dicomnode.dimse.command import RESPONSE, CommandField, CommandSet
from dicomnode.dimse.implementation import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
)
from dicomnode.dimse.inflow import Inflow
from dicomnode.dimse.message import MessageReader, Reception, Response
from dicomnode.dimse.p_data import encode_fragments, encode_stream, read_fragments
from dicomnode.dimse.pdu import (
    A_RELEASE_RP,
    A_RELEASE_RQ,
    ABORT_SOURCE_USER,
    HEADER,
    PduType,
    encode_abort,
)
from dicomnode.dimse.peer_errors import (
    AbortReason,
    AssociationEnded,
    AssociationRejected,
    PeerAborted,
    PeerClosed,
    PeerSilent,
    ProtocolViolation,
)
from dicomnode.dimse.syntaxes import VERIFICATION

MAXIMUM_CONTEXTS: Final = 128
"""Presentation context IDs are the odd numbers up to 255 (PS3.8 9.3.2.2)."""

_MAXIMUM_PDU: Final = 131072
_CONTROL_PDU_BYTES: Final = 4
_MAXIMUM_MESSAGE_ID: Final = 0xFFFF
_MEDIUM_PRIORITY: Final = 0x0000


class RequestedAssociation:
    """An association with `called_ae_title` at `host`:`port`, from `open` to `close`.

    `proposals` are (abstract syntax, transfer syntax), a presentation context each. What
    was accepted is in `accepted`; `results` has the result of each that was proposed
    (PS3.8 Table 9-18).
    """

    def __init__(self, connection: socket.socket, timeout_seconds: float) -> None:
        self._socket = connection
        self._timeout = timeout_seconds
        self._deadline = 0.0
        self._inflow = Inflow(self._receive_into)
        self._contexts: dict[int, AcceptedContext] = {}
        self._maximum_length = 0
        self._message_id = 0
        self.accepted: dict[tuple[str, str], int] = {}
        self.results: dict[tuple[str, str], int] = {}

    @classmethod
    @contextlib.contextmanager
    def open(
        cls,
        host: str,
        port: int,
        *,
        called_ae_title: str,
        calling_ae_title: str,
        proposals: Sequence[tuple[str, str]],
        timeout_seconds: float,
    ) -> Iterator[RequestedAssociation]:
        """Request the association; release it at the end, or abort it after an error."""
        try:
            connection = socket.create_connection((host, port), timeout_seconds)
        except TimeoutError as error:
            raise PeerSilent(f"no connection within {timeout_seconds:g} s") from error
        except OSError as error:
            raise PeerClosed(f"no connection: {error.strerror or type(error).__name__}") from error
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            association = cls(connection, timeout_seconds)
            try:
                association._negotiate(called_ae_title, calling_ae_title, proposals)
                yield association
                association._release()
            except (PeerClosed, PeerAborted, AssociationRejected):
                raise
            except BaseException:
                with contextlib.suppress(AssociationEnded):  # the first error is the one to tell
                    association._send(encode_abort(ABORT_SOURCE_USER))
                raise

    def echo(self) -> int:
        """C-ECHO; returns the status."""
        context_id = next(iter(self._contexts))
        command = CommandSet(
            command_field=CommandField.C_ECHO_RQ,
            message_id=self._next_message_id(),
            affected_sop_class_uid=VERIFICATION,
        )
        self._send_command(context_id, command)
        return self._receive_status(command)

    def store(
        self,
        context_id: int,
        *,
        data_set: BinaryIO,
        sop_class_uid: str,
        sop_instance_uid: str,
    ) -> int:
        """C-STORE of the bytes that `data_set` still holds; returns the status.

        Raises `OSError` when it cannot be read.
        """
        command = CommandSet(
            command_field=CommandField.C_STORE_RQ,
            message_id=self._next_message_id(),
            affected_sop_class_uid=sop_class_uid,
            affected_sop_instance_uid=sop_instance_uid,
            priority=_MEDIUM_PRIORITY,
            command_data_set_type=command_sets.DATA_SET_FOLLOWS,
        )
        self._send_command(context_id, command)
        for pdu in encode_stream(context_id, data_set, maximum_length=self._sending_length()):
            self._send(pdu)
        return self._receive_status(command)

    # ------------------------------------------------------------------ negotiation

    def _negotiate(
        self, called_ae_title: str, calling_ae_title: str, proposals: Sequence[tuple[str, str]]
    ) -> None:
        contexts = [
            ProposedContext(
                context_id=2 * number + 1, abstract_syntax=abstract, transfer_syntaxes=(transfer,)
            )
            for number, (abstract, transfer) in enumerate(proposals)
        ]
        self._send(
            associate.encode_request(
                called_ae_title=called_ae_title,
                calling_ae_title=calling_ae_title,
                contexts=contexts,
                maximum_length=_MAXIMUM_PDU,
                implementation_class_uid=IMPLEMENTATION_CLASS_UID,
                implementation_version_name=IMPLEMENTATION_VERSION_NAME,
            )
        )
        kind, body = self._receive_pdu(associate.MAXIMUM_BYTES)
        if kind == PduType.A_ASSOCIATE_RJ:
            raise AssociationRejected(*bytes(body[1:4]))
        if kind != PduType.A_ASSOCIATE_AC:
            raise _unexpected(kind)
        answers, self._maximum_length = associate.decode_accept(bytes(body))
        results = {answer.context_id: answer for answer in answers}
        for context in contexts:
            answer = results.get(context.context_id)
            proposal = (context.abstract_syntax, context.transfer_syntaxes[0])
            self.results[proposal] = answer.result if answer is not None else 2
            if answer is not None and answer.result == 0:
                self.accepted[proposal] = context.context_id
                self._contexts[context.context_id] = AcceptedContext(
                    context_id=context.context_id,
                    abstract_syntax=context.abstract_syntax,
                    transfer_syntax=context.transfer_syntaxes[0],
                )

    def _release(self) -> None:
        """A-RELEASE; a peer that asks for it at the same time is answered (PS3.8 9.2, Sta9)."""
        self._send(A_RELEASE_RQ)
        kind, _ = self._receive_pdu(_CONTROL_PDU_BYTES)
        if kind == PduType.A_RELEASE_RQ:
            self._send(A_RELEASE_RP)
            kind, _ = self._receive_pdu(_CONTROL_PDU_BYTES)
        if kind != PduType.A_RELEASE_RP:
            raise _unexpected(kind)

    # ------------------------------------------------------------------ messages

    def _next_message_id(self) -> int:
        self._message_id = self._message_id % _MAXIMUM_MESSAGE_ID + 1
        return self._message_id

    def _sending_length(self) -> int:
        return min(self._maximum_length or _MAXIMUM_PDU, _MAXIMUM_PDU)

    def _send_command(self, context_id: int, command: CommandSet) -> None:
        for pdu in encode_fragments(
            context_id,
            command_sets.encode(command),
            is_command=True,
            maximum_length=self._sending_length(),
        ):
            self._send(pdu)

    def _receive_status(self, request: CommandSet) -> int:
        """The status of the response to `request`."""
        capture = _Capture()
        reader = MessageReader(self._contexts, capture.begin)
        self._start_waiting()
        while capture.command is None or not reader.between_messages:
            kind, length = HEADER.unpack(self._inflow.take(HEADER.size))
            if kind != PduType.P_DATA_TF:
                raise self._ended_by(kind)
            if length > _MAXIMUM_PDU:
                raise ProtocolViolation(
                    AbortReason.INVALID_PDU_PARAMETER_VALUE,
                    f"a P-DATA-TF PDU claims {length} bytes, expected at most {_MAXIMUM_PDU}",
                )
            for fragment in read_fragments(self._inflow, length):
                reader.add(fragment)
        answer = capture.command
        if (
            answer.command_field != request.command_field | RESPONSE
            or answer.message_id_being_responded_to != request.message_id
            or answer.status is None
        ):
            raise ProtocolViolation(
                AbortReason.NOT_SPECIFIED,
                f"answered with command 0x{answer.command_field:04X}, expected the response "
                f"0x{request.command_field | RESPONSE:04X} to message {request.message_id}",
            )
        return answer.status

    # ------------------------------------------------------------------ transport

    def _receive_pdu(self, maximum: int) -> tuple[int, memoryview]:
        """Type and body of a PDU that is no P-DATA-TF."""
        self._start_waiting()
        kind, length = HEADER.unpack(self._inflow.take(HEADER.size))
        if kind == PduType.A_ABORT:
            raise self._ended_by(kind)
        if kind not in PduType.__members__.values() or length > maximum:
            raise _unexpected(kind)
        return kind, self._inflow.take(length)

    def _ended_by(self, kind: int) -> AssociationEnded:
        return PeerAborted("the peer aborted") if kind == PduType.A_ABORT else _unexpected(kind)

    def _start_waiting(self) -> None:
        self._deadline = time.monotonic() + self._timeout

    def _receive_into(self, view: memoryview) -> int:
        left = self._deadline - time.monotonic()
        try:
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            return self._socket.recv_into(view)
        except TimeoutError as error:
            raise PeerSilent(f"no answer within {self._timeout:g} s") from error
        except OSError as error:
            raise PeerClosed(f"the connection broke: {error.strerror}") from error

    def _send(self, pdu: bytes) -> None:
        self._socket.settimeout(self._timeout)
        try:
            self._socket.sendall(pdu)
        except TimeoutError as error:
            raise PeerSilent(f"the peer read nothing within {self._timeout:g} s") from error
        except OSError as error:
            raise PeerClosed(f"the connection broke: {error.strerror}") from error


class _Capture:
    """Keeps the command set of a response and drops its data set."""

    def __init__(self) -> None:
        self.command: CommandSet | None = None

    def begin(self, command: CommandSet, _context: AcceptedContext) -> Reception:
        self.command = command
        return self

    def write(self, data: memoryview) -> None:
        """Dropped."""

    def finish(self) -> tuple[Response, ...]:
        return ()

    def abandon(self) -> None:
        """Nothing was kept."""


def _unexpected(kind: int) -> ProtocolViolation:
    return ProtocolViolation(AbortReason.UNEXPECTED_PDU, f"the peer sent PDU type 0x{kind:02X}")
