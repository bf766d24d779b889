"""One association, seen from the acceptor: the upper layer's state machine (PS3.8 9.2).

::

    Sta2  awaiting A-ASSOCIATE-RQ ──ARTIM, wrong PDU──> A-ABORT ──┐
      │ admitted        └──rejected──> A-ASSOCIATE-RJ ────────────┤
    Sta6  data transfer ──A-RELEASE-RQ──> A-RELEASE-RP ───────────┤
      │        └──violation, silence, too large, stop──> A-ABORT ─┤
      └──A-ABORT, connection lost──> closed          Sta13  awaiting the peer's close

This node never asks for a release (a peer that is to go is aborted), so release requests
cannot collide.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dicomnode.config import DimseSettings
from dicomnode.dimse import associate
from dicomnode.dimse import command as command_sets
from dicomnode.dimse.admission import Admitted, Rejection, admit, is_ae_title
from dicomnode.dimse.associate import AcceptedContext, AssociateRequest
from dicomnode.dimse.command import CommandField, CommandSet
from dicomnode.dimse.implementation import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
)
from dicomnode.dimse.inflow import Inflow
from dicomnode.dimse.message import MessageReader, Reception, Request, Requestor, Response, Service
from dicomnode.dimse.p_data import encode_fragments, read_fragments
from dicomnode.dimse.pdu import (
    A_RELEASE_RP,
    ABORT_SOURCE_PROVIDER,
    ABORT_SOURCE_USER,
    HEADER,
    PduType,
    encode_abort,
    encode_reject,
)
from dicomnode.dimse.peer_errors import (
    AbortReason,
    AssociationEnded,
    NodeStopping,
    PeerAborted,
    PeerClosed,
    ProtocolViolation,
)
from dicomnode.dimse.transport import Transport
from dicomnode.dimse.verification import Answer
from dicomnode.logs import get_logger
from dicomnode.metrics import Metrics

log = get_logger(__name__)

UNRECOGNIZED_OPERATION = 0x0211
"""PS3.7 C.5.15."""

_SLACK_BYTES = 6
"""Some senders do not count the PDU's header against the maximum length."""
_LINGER_SECONDS = 5.0
"""Sta13: how long a peer may take to read our last PDU and close, unless ARTIM is shorter."""


@dataclass(frozen=True, kw_only=True)
class Acceptor:
    """What all associations of one SCP share."""

    settings: DimseSettings
    services: Mapping[int, Service]
    """By command field."""
    supported: Mapping[str, tuple[str, ...]]
    """Transfer syntaxes by abstract syntax."""
    metrics: Metrics
    take_place: Callable[[Association], bool]
    """Whether there is room for one more association; it holds it then."""
    leave_place: Callable[[Association], None]
    stopping: Callable[[], bool]


class Association:
    """Serves one transport connection to its end; `run` is the body of a thread."""

    def __init__(self, connection: socket.socket, address: str, acceptor: Acceptor) -> None:
        self._transport = Transport(connection)
        self._address = address
        self._acceptor = acceptor
        self._inflow = Inflow(self._transport.receive_into)
        self._maximum_length = 0
        self._requestor: Requestor | None = None
        self._reader: MessageReader | None = None

    def run(self) -> None:
        try:
            self._serve_connection()
        except AssociationEnded as ended:
            self._abandon()
            self._end(NodeStopping("this node stops") if self._is_stop(ended) else ended)
        finally:
            self._abandon()
            self._acceptor.leave_place(self)
            artim = self._acceptor.settings.artim_timeout_seconds
            self._transport.linger(min(_LINGER_SECONDS, artim))
            self._transport.close()

    def wake_if_idle(self) -> None:
        """Another thread wants the association to end unless a message is under way."""
        if self._reader is None or self._reader.between_messages:
            self._transport.shut(socket.SHUT_RD)

    def cut(self) -> None:
        """Another thread ends the association at once."""
        self._transport.shut(socket.SHUT_RDWR)

    # ------------------------------------------------------------------ Sta2

    def _serve_connection(self) -> None:
        settings = self._acceptor.settings
        self._transport.wait_at_most(settings.artim_timeout_seconds)
        request = self._receive_request()
        if request is None:
            return
        answer: Admitted | Rejection = admit(
            request,
            address=self._address,
            settings=settings,
            supported=self._acceptor.supported,
        )
        if isinstance(answer, Admitted):
            if self._acceptor.stopping():
                answer = Rejection.TEMPORARY_CONGESTION
            elif not self._acceptor.take_place(self):
                answer = Rejection.LOCAL_LIMIT
        if isinstance(answer, Rejection):
            self._reject(answer, request)
            return
        self._requestor = answer.requestor
        self._maximum_length = request.maximum_length
        self._transport.send(
            associate.encode_accept(
                request,
                answer.answers,
                maximum_length=settings.maximum_pdu_bytes,
                implementation_class_uid=IMPLEMENTATION_CLASS_UID,
                implementation_version_name=IMPLEMENTATION_VERSION_NAME,
            )
        )
        self._transfer(answer.contexts)

    def _receive_request(self) -> AssociateRequest | None:
        """The A-ASSOCIATE-RQ; None when the peer closes without a word, as probes do."""
        try:
            self._inflow.peek()
        except PeerClosed:
            return None
        kind, length = self._receive_header()
        if kind == PduType.A_ABORT:
            raise PeerAborted("before an association was requested")
        if kind != PduType.A_ASSOCIATE_RQ:
            raise _unexpected(kind, "A-ASSOCIATE-RQ")
        if length > associate.MAXIMUM_BYTES:
            raise ProtocolViolation(
                AbortReason.INVALID_PDU_PARAMETER_VALUE,
                f"the A-ASSOCIATE-RQ claims {length} bytes, expected at most "
                f"{associate.MAXIMUM_BYTES}",
            )
        return associate.decode_request(bytes(self._inflow.take(length)))

    def _reject(self, rejection: Rejection, request: AssociateRequest) -> None:
        self._acceptor.metrics.associations_rejected.labels(rejection.code).inc()
        log.warning(
            "association.rejected",
            reason=rejection.code,
            calling_ae_title=_printable(request.calling_ae_title),
            called_ae_title=_printable(request.called_ae_title),
            peer=self._address,
        )
        self._transport.send(encode_reject(*rejection.numbers))

    # ------------------------------------------------------------------ Sta6

    def _transfer(self, contexts: Mapping[int, AcceptedContext]) -> None:
        settings = self._acceptor.settings
        reader = self._reader = MessageReader(contexts, self._begin)
        while True:
            if self._acceptor.stopping() and reader.between_messages:
                raise NodeStopping("this node stops")
            self._transport.wait_at_most(settings.idle_timeout_seconds)
            kind, length = self._receive_header()
            if kind == PduType.P_DATA_TF:
                self._receive_data(length, reader)
            elif kind == PduType.A_RELEASE_RQ:
                self._transport.send(A_RELEASE_RP)
                return
            elif kind == PduType.A_ABORT:
                raise PeerAborted("the peer aborted")
            else:
                raise _unexpected(kind, "P-DATA-TF, A-RELEASE-RQ or A-ABORT")

    def _receive_data(self, length: int, reader: MessageReader) -> None:
        maximum = self._acceptor.settings.maximum_pdu_bytes + _SLACK_BYTES
        if length > maximum:
            raise ProtocolViolation(
                AbortReason.INVALID_PDU_PARAMETER_VALUE,
                f"a P-DATA-TF PDU claims {length} bytes, expected at most {maximum}",
            )
        for fragment in read_fragments(self._inflow, length):
            reception = reader.add(fragment)
            if reception is not None:
                self._answer(fragment.context_id, reception)

    def _begin(self, command: CommandSet, context: AcceptedContext) -> Reception:
        assert self._requestor is not None
        service = self._acceptor.services.get(command.command_field)
        if service is not None:
            return service.begin(
                Request(command=command, context=context, requestor=self._requestor)
            )
        if command.command_field == CommandField.C_CANCEL_RQ:
            return _Silence()
        if command.command_field & command_sets.RESPONSE:
            raise ProtocolViolation(
                AbortReason.NOT_SPECIFIED,
                f"a response 0x{command.command_field:04X} to nothing that was asked",
            )
        return Answer(command.response(UNRECOGNIZED_OPERATION))

    def _answer(self, context_id: int, reception: Reception) -> None:
        for response in reception.finish():
            self._send_response(context_id, response)
        # whatever the answer took, the peer's time starts now
        self._transport.wait_at_most(self._acceptor.settings.idle_timeout_seconds)

    def _send_response(self, context_id: int, response: Response) -> None:
        pdus = [
            *encode_fragments(
                context_id,
                command_sets.encode(response.command),
                is_command=True,
                maximum_length=self._maximum_length,
            )
        ]
        if response.data_set is not None:
            pdus += encode_fragments(
                context_id,
                response.data_set,
                is_command=False,
                maximum_length=self._maximum_length,
            )
        for pdu in pdus:
            self._transport.send(pdu)

    # ------------------------------------------------------------------ the end

    def _abandon(self) -> None:
        """Nothing half received stays, and nothing does when the peer hears of the end."""
        if self._reader is not None:
            self._reader.abandon()

    def _end(self, ended: AssociationEnded) -> None:
        """Answer what ended the association, if it can be answered, and tell why."""
        by_us = not isinstance(ended, PeerClosed | PeerAborted)
        if isinstance(ended, ProtocolViolation):
            last_word = encode_abort(ABORT_SOURCE_PROVIDER, ended.reason)
        else:
            last_word = encode_abort(ABORT_SOURCE_USER)
        if by_us:
            self._acceptor.metrics.associations_rejected.labels(ended.code).inc()
            with contextlib.suppress(AssociationEnded):  # it has ended; there is nobody to tell
                self._transport.send(last_word)
        log.log(
            30 if by_us and not isinstance(ended, NodeStopping) else 20,
            "association.ended",
            reason=ended.code,
            calling_ae_title=self._requestor.calling_ae_title if self._requestor else "",
            peer=self._address,
            why=str(ended),
        )

    def _is_stop(self, ended: AssociationEnded) -> bool:
        return isinstance(ended, PeerClosed) and self._acceptor.stopping()

    def _receive_header(self) -> tuple[int, int]:
        kind, length = HEADER.unpack(self._inflow.take(HEADER.size))
        return kind, length


class _Silence:
    """What is not answered: C-CANCEL for an operation that is over (PS3.7 9.3.2.3)."""

    def write(self, data: memoryview) -> None:
        """Dropped."""

    def finish(self) -> tuple[Response, ...]:
        return ()

    def abandon(self) -> None:
        """Nothing was kept."""


def _unexpected(kind: int, expected: str) -> ProtocolViolation:
    known = kind in PduType.__members__.values()
    return ProtocolViolation(
        AbortReason.UNEXPECTED_PDU if known else AbortReason.UNRECOGNIZED_PDU,
        f"PDU type 0x{kind:02X}, expected {expected}",
    )


def _printable(ae_title: str) -> str:
    return ae_title if is_ae_title(ae_title) else "not an AE title"
