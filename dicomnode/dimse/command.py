"""Command sets: Implicit VR Little Endian elements of group 0000 (PS3.7 6.3, 9.3, E.1)."""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import Final

from dicomnode.dimse.peer_errors import AbortReason, ProtocolViolation

NO_DATA_SET: Final = 0x0101
"""(0000,0800) Command Data Set Type when no data set follows; anything else: one does."""
DATA_SET_FOLLOWS: Final = 0x0001
RESPONSE: Final = 0x8000

_ELEMENT = struct.Struct("<HHI")
_MAXIMUM_TEXT = 64


class CommandField(enum.IntEnum):
    """(0000,0100) Command Field of what a peer may ask (PS3.7 E.1)."""

    C_STORE_RQ = 0x0001
    C_FIND_RQ = 0x0020
    C_ECHO_RQ = 0x0030
    N_EVENT_REPORT_RQ = 0x0100
    N_ACTION_RQ = 0x0130
    C_CANCEL_RQ = 0x0FFF


@dataclass(frozen=True, kw_only=True)
class CommandSet:
    """The elements of a command that this node reads or writes; None: not present."""

    command_field: int
    command_data_set_type: int = NO_DATA_SET
    affected_sop_class_uid: str | None = None
    requested_sop_class_uid: str | None = None
    message_id: int | None = None
    message_id_being_responded_to: int | None = None
    status: int | None = None
    error_comment: str | None = None
    affected_sop_instance_uid: str | None = None
    requested_sop_instance_uid: str | None = None
    priority: int | None = None
    event_type_id: int | None = None
    action_type_id: int | None = None

    @property
    def has_data_set(self) -> bool:
        return self.command_data_set_type != NO_DATA_SET

    def response(self, status: int, *, error_comment: str | None = None) -> CommandSet:
        """The answer to this request, without a data set (PS3.7 9.3.1.2 and siblings)."""
        return CommandSet(
            command_field=self.command_field | RESPONSE,
            message_id_being_responded_to=self.message_id,
            affected_sop_class_uid=self.affected_sop_class_uid or self.requested_sop_class_uid,
            affected_sop_instance_uid=(
                self.affected_sop_instance_uid or self.requested_sop_instance_uid
            ),
            status=status,
            error_comment=error_comment[:_MAXIMUM_TEXT] if error_comment else None,
        )


_NUMBERS: Final = {
    0x0100: "command_field",
    0x0110: "message_id",
    0x0120: "message_id_being_responded_to",
    0x0700: "priority",
    0x0800: "command_data_set_type",
    0x0900: "status",
    0x1002: "event_type_id",
    0x1008: "action_type_id",
}
_UIDS: Final = {
    0x0002: "affected_sop_class_uid",
    0x0003: "requested_sop_class_uid",
    0x1000: "affected_sop_instance_uid",
    0x1001: "requested_sop_instance_uid",
}
_TEXTS: Final = {0x0902: "error_comment"}
_ORDER: Final = sorted({**_NUMBERS, **_UIDS, **_TEXTS}.items())


def decode(data: bytes) -> CommandSet:
    """The command set in `data`; elements that this node has no use for are skipped.

    Text is kept as sent, without padding: a UID here is not parsed yet. Raises
    `ProtocolViolation` when an element does not fit or the command field is missing.
    """
    found: dict[str, int | str] = {}
    position = 0
    while position < len(data):
        if position + _ELEMENT.size > len(data):
            raise _violation("ends within an element")
        group, element, length = _ELEMENT.unpack_from(data, position)
        position += _ELEMENT.size
        if group != 0 or length > len(data) - position:
            raise _violation(f"({group:04X},{element:04X}) with length {length} does not belong")
        value = data[position : position + length]
        position += length
        if element in _NUMBERS:
            if length != 2:
                raise _violation(f"(0000,{element:04X}) has length {length}, expected 2")
            found[_NUMBERS[element]] = int.from_bytes(value, "little")
        elif element in _UIDS:
            found[_UIDS[element]] = value.decode("latin-1").rstrip("\0 ")
        elif element in _TEXTS:
            found[_TEXTS[element]] = value.decode("latin-1").strip(" ")
    if "command_field" not in found:
        raise _violation("has no (0000,0100) Command Field")
    return CommandSet(**found)  # type: ignore[arg-type]


def encode(command: CommandSet) -> bytes:
    """The bytes of `command`, its (0000,0000) Command Group Length first."""
    body = bytearray()
    for element, name in _ORDER:
        value = getattr(command, name)
        if value is None:
            continue
        if element in _NUMBERS:
            encoded = int(value).to_bytes(2, "little")
        else:
            encoded = str(value).encode("latin-1", "replace")
            encoded += (b"\0" if element in _UIDS else b" ") * (len(encoded) % 2)
        body += _ELEMENT.pack(0, element, len(encoded)) + encoded
    return _ELEMENT.pack(0, 0, 4) + len(body).to_bytes(4, "little") + bytes(body)


def _violation(finding: str) -> ProtocolViolation:
    return ProtocolViolation(
        AbortReason.INVALID_PDU_PARAMETER_VALUE, f"the command set {finding} (PS3.7 6.3)"
    )
