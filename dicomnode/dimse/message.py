"""DIMSE messages: a command set, and perhaps a data set, out of fragments (PS3.7 6.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from dicomnode.dimse import command as command_sets
from dicomnode.dimse.associate import AcceptedContext
from dicomnode.dimse.command import CommandSet
from dicomnode.dimse.p_data import Fragment
from dicomnode.dimse.peer_errors import AbortReason, ProtocolViolation

MAXIMUM_COMMAND_BYTES: Final = 16 * 1024
"""A command set of the services here stays under 1 KiB."""


@dataclass(frozen=True, kw_only=True)
class Requestor:
    """Who asks, as admitted."""

    calling_ae_title: str
    label: str
    """What metrics call it: an AE title from the settings, or `unknown`."""
    address: str


@dataclass(frozen=True, kw_only=True)
class Request:
    """A command that a peer sent, before its data set has arrived."""

    command: CommandSet
    context: AcceptedContext
    requestor: Requestor


@dataclass(frozen=True, kw_only=True)
class Response:
    """What goes back: a command set, and perhaps a data set in the context's syntax."""

    command: CommandSet
    data_set: bytes | None = None


class Reception(Protocol):
    """A message that is arriving."""

    def write(self, data: memoryview) -> None:
        """The next bytes of the data set; they are gone when this returns."""

    def finish(self) -> Iterable[Response]:
        """The message is complete; what to answer. Consumed to its end, each response being
        sent before the next is asked for."""

    def abandon(self) -> None:
        """The rest will never come: leave nothing behind."""


class Service(Protocol):
    """What answers one command field. Threads of several associations call it at once."""

    @property
    def command_field(self) -> int:
        """(0000,0100) of the requests."""

    @property
    def presentation_contexts(self) -> Mapping[str, tuple[str, ...]]:
        """Transfer syntaxes to accept, by abstract syntax."""

    def begin(self, request: Request) -> Reception:
        """A request has arrived; its data set, if any, follows."""


class MessageReader:
    """Puts one peer's fragments together.

    `begin` is called with each complete command; what it returns receives the data set.
    """

    def __init__(
        self,
        contexts: Mapping[int, AcceptedContext],
        begin: Callable[[CommandSet, AcceptedContext], Reception],
    ) -> None:
        self._contexts = contexts
        self._begin = begin
        self._context_id: int | None = None
        self._command = bytearray()
        self._reception: Reception | None = None

    @property
    def between_messages(self) -> bool:
        return self._context_id is None

    def add(self, fragment: Fragment) -> Reception | None:
        """The reception that this fragment completes, if it does.

        Raises `ProtocolViolation` for a fragment that cannot come now: of a context that
        was not accepted, of another context than the message's, a data set without its
        command, a command within a data set.
        """
        if self._context_id is None:
            if fragment.context_id not in self._contexts:
                raise ProtocolViolation(
                    AbortReason.INVALID_PDU_PARAMETER_VALUE,
                    f"presentation context {fragment.context_id} was not accepted",
                )
            self._context_id = fragment.context_id
        elif fragment.context_id != self._context_id:
            raise ProtocolViolation(
                AbortReason.UNEXPECTED_PDU_PARAMETER,
                f"a fragment of presentation context {fragment.context_id} within a message "
                f"of context {self._context_id} (PS3.8 E.2)",
            )
        if self._reception is None:
            return self._add_to_command(fragment)
        return self._add_to_data_set(fragment, self._reception)

    def abandon(self) -> None:
        """Give up the message that is under way, if any."""
        reception, self._reception = self._reception, None
        if reception is not None:
            reception.abandon()

    def _add_to_command(self, fragment: Fragment) -> Reception | None:
        if not fragment.is_command:
            raise ProtocolViolation(
                AbortReason.UNEXPECTED_PDU_PARAMETER, "a data set without a command set"
            )
        self._command += fragment.data
        if len(self._command) > MAXIMUM_COMMAND_BYTES:
            raise ProtocolViolation(
                AbortReason.INVALID_PDU_PARAMETER_VALUE,
                f"a command set of more than {MAXIMUM_COMMAND_BYTES} bytes",
            )
        if not fragment.is_last:
            return None
        command = command_sets.decode(bytes(self._command))
        self._command.clear()
        assert self._context_id is not None
        reception = self._begin(command, self._contexts[self._context_id])
        if command.has_data_set:
            self._reception = reception
            return None
        self._context_id = None
        return reception

    def _add_to_data_set(self, fragment: Fragment, reception: Reception) -> Reception | None:
        if fragment.is_command:
            raise ProtocolViolation(
                AbortReason.UNEXPECTED_PDU_PARAMETER, "a command set within a data set"
            )
        if fragment.data:
            reception.write(fragment.data)
        if not fragment.is_last:
            return None
        self._reception = None
        self._context_id = None
        return reception
