"""A sender that says whatever it is told to, for tests of what receives it.

Speaks just enough of PS3.8 to get bytes to a Storage SCP: any abstract and transfer
syntax, any command set, any data set, any raw bytes; nothing is checked. Every wait is
bounded.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from dicomnode.dimse import associate
from dicomnode.dimse import command as command_sets
from dicomnode.dimse.command import CommandField, CommandSet
from dicomnode.dimse.pdu import A_RELEASE_RQ, HEADER, PduType
from dicomnode.dimse.syntaxes import (
    COMPUTED_RADIOGRAPHY,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    VERIFICATION,
)

ABORTED = "aborted"
REJECTED = "rejected"
NOT_ACCEPTED = "not accepted"
CLOSED = "closed"

Answer = int | str
"""A status, or one of the words above."""


class RawSender:
    """A transport connection to an SCP, and an association when `associate` was called."""

    def __init__(self, host: str, port: int, *, timeout_seconds: float = 20.0) -> None:
        self.socket = socket.create_connection((host, port), timeout_seconds)
        self.answers: dict[int, associate.ContextAnswer] = {}
        self.maximum_length = 0

    def __enter__(self) -> RawSender:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.socket.close()

    def associate(
        self,
        contexts: Sequence[tuple[str, Sequence[str]]],
        *,
        called_ae_title: str = "DICOMNODE",
        calling_ae_title: str = "TESTER",
        maximum_length: int = 16384,
    ) -> str:
        """Propose `contexts` (abstract syntax, transfer syntaxes), with IDs 1, 3, 5 ...

        Returns "accepted", `REJECTED` (then `rejection` has result, source and reason),
        `ABORTED` or `CLOSED`.
        """
        self.send(
            associate.encode_request(
                called_ae_title=called_ae_title,
                calling_ae_title=calling_ae_title,
                contexts=[
                    associate.ProposedContext(
                        context_id=2 * number + 1,
                        abstract_syntax=abstract_syntax,
                        transfer_syntaxes=tuple(transfer_syntaxes),
                    )
                    for number, (abstract_syntax, transfer_syntaxes) in enumerate(contexts)
                ],
                maximum_length=maximum_length,
                implementation_class_uid="1.2.3.4",
                implementation_version_name="RAW_SENDER",
            )
        )
        kind, body = self.receive()
        if kind == PduType.A_ASSOCIATE_AC:
            answers, self.maximum_length = associate.decode_accept(body)
            self.answers = {answer.context_id: answer for answer in answers}
            return "accepted"
        if kind == PduType.A_ASSOCIATE_RJ:
            self.rejection = (body[1], body[2], body[3])
            return REJECTED
        return ABORTED if kind == PduType.A_ABORT else CLOSED

    def store(
        self,
        data_set: bytes,
        *,
        context_id: int = 1,
        sop_class_uid: str = COMPUTED_RADIOGRAPHY,
        sop_instance_uid: str = "1.2.3",
        fragment_bytes: int = 16000,
        **command: Any,
    ) -> Answer:
        """C-STORE; `command` overrides fields of the command set."""
        fields: dict[str, Any] = {
            "command_field": CommandField.C_STORE_RQ,
            "message_id": 1,
            "priority": 0,
            "affected_sop_class_uid": sop_class_uid,
            "affected_sop_instance_uid": sop_instance_uid,
            "command_data_set_type": command_sets.DATA_SET_FOLLOWS,
        } | command
        try:
            self.send(fragment(context_id, command_sets.encode(CommandSet(**fields)), command=True))
            for start in range(0, max(len(data_set), 1), fragment_bytes):
                self.send(
                    fragment(
                        context_id,
                        data_set[start : start + fragment_bytes],
                        last=start + fragment_bytes >= len(data_set),
                    )
                )
        except ConnectionError:
            pass  # the SCP has had enough; what it said about it can still be read
        return self.status()

    def echo(self, *, context_id: int = 1, message_id: int = 1) -> Answer:
        command = CommandSet(
            command_field=CommandField.C_ECHO_RQ,
            message_id=message_id,
            affected_sop_class_uid=VERIFICATION,
        )
        self.send(fragment(context_id, command_sets.encode(command), command=True))
        return self.status()

    def release(self) -> bool:
        """Whether the SCP released the association and closed the connection."""
        self.send(A_RELEASE_RQ)
        return self.receive()[0] == PduType.A_RELEASE_RP

    def status(self) -> Answer:
        """The status in the next response."""
        command = bytearray()
        while True:
            kind, body = self.receive()
            if kind != PduType.P_DATA_TF:
                return ABORTED if kind == PduType.A_ABORT else CLOSED
            command += body[6:]
            if body[5] & 2:
                break
        status = command_sets.decode(bytes(command)).status
        assert status is not None
        return status

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> tuple[int, bytes]:
        """Type and body of the next PDU; type 0 when the connection is closed.

        Raises `TimeoutError` when neither happens.
        """
        try:
            kind, length = HEADER.unpack(self._exactly(HEADER.size))
            return kind, self._exactly(length)
        except (EOFError, ConnectionError):
            return 0, b""

    def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            received = self.socket.recv(count - len(data))
            if not received:
                raise EOFError
            data += received
        return bytes(data)


def fragment(context_id: int, data: bytes, *, command: bool = False, last: bool = True) -> bytes:
    """One P-DATA-TF PDU with one PDV."""
    control = (1 if command else 0) | (2 if last else 0)
    item = (len(data) + 2).to_bytes(4, "big") + bytes((context_id, control)) + data
    return HEADER.pack(PduType.P_DATA_TF, len(item)) + item


def push(
    host: str,
    port: int,
    data_set: bytes,
    *,
    transfer_syntax_uid: str = EXPLICIT_VR_LITTLE_ENDIAN,
    sop_class_uid: str = COMPUTED_RADIOGRAPHY,
    calling_ae_title: str = "TESTER",
    **store: Any,
) -> Answer:
    """One association, one C-STORE of `data_set`; what the SCP said."""
    with RawSender(host, port) as sender:
        answer = sender.associate(
            [(sop_class_uid, [transfer_syntax_uid])], calling_ae_title=calling_ae_title
        )
        if answer != "accepted":
            return answer
        if sender.answers[1].result != 0:
            return NOT_ACCEPTED
        status = sender.store(data_set, sop_class_uid=sop_class_uid, **store)
        if isinstance(status, int):
            sender.release()
        return status


def split_file(data: bytes) -> tuple[dict[int, bytes], bytes]:
    """Values of group 0002 by element number, and the data set, of a file that may be
    malformed: whatever does not look like file meta information is data set."""
    if data[128:132] != b"DICM":
        return {}, data
    found: dict[int, bytes] = {}
    position = 132
    while data[position : position + 2] == b"\x02\x00" and len(data) >= position + 8:
        is_long = data[position + 4 : position + 6] in (b"OB", b"OW", b"UN", b"SQ", b"UT")
        header = 12 if is_long else 8
        length = int.from_bytes(
            data[position + header - (4 if is_long else 2) :][: 4 if is_long else 2], "little"
        )
        if position + header + length > len(data):
            break
        number = int.from_bytes(data[position + 2 : position + 4], "little")
        found[number] = data[position + header : position + header + length]
        position += header + length
    return found, data[position:]


def push_file(host: str, port: int, path: Path, *, accepted: Iterable[str], **store: Any) -> Answer:
    """Send a file that may be malformed, as well as its file meta information allows.

    A transfer syntax or SOP class that the SCP would not take is replaced by one that it
    does (of `accepted` SOP classes), so that the bytes get there.
    """
    meta, data_set = split_file(path.read_bytes())
    text = {number: value.rstrip(b"\0 ").decode("latin-1") for number, value in meta.items()}
    sop_class = text.get(0x0002, "")
    options = {"sop_instance_uid": text.get(0x0003, "1.2.3")} | store
    syntaxes = [text.get(0x0010, ""), EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN]
    for syntax in syntaxes[0 if meta else 2 :]:
        if not syntax.isascii() or len(syntax) > 64:
            continue
        answer = push(
            host,
            port,
            data_set,
            transfer_syntax_uid=syntax,
            sop_class_uid=sop_class if sop_class in accepted else COMPUTED_RADIOGRAPHY,
            **options,
        )
        if answer != NOT_ACCEPTED:
            return answer
    return NOT_ACCEPTED
