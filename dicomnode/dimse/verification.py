"""C-ECHO (PS3.4 Annex A, PS3.7 9.1.5)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dicomnode.dimse.command import CommandField, CommandSet
from dicomnode.dimse.message import Reception, Request, Response
from dicomnode.dimse.syntaxes import TRANSFER_SYNTAXES, VERIFICATION
from dicomnode.status import StorageStatus, VerificationStatus


class Answer:
    """A reception that has its answer already and drops whatever data set follows."""

    def __init__(self, command: CommandSet) -> None:
        self._command = command

    def write(self, data: memoryview) -> None:
        """Dropped."""

    def finish(self) -> Iterable[Response]:
        return [Response(command=self._command)]

    def abandon(self) -> None:
        """Nothing was kept."""


class VerificationService:
    """Says that the node is here."""

    command_field: int = CommandField.C_ECHO_RQ
    presentation_contexts: Mapping[str, tuple[str, ...]] = {VERIFICATION: TRANSFER_SYNTAXES[:3]}

    def begin(self, request: Request) -> Reception:
        supported = request.context.abstract_syntax == VERIFICATION
        return Answer(
            request.command.response(
                VerificationStatus.SUCCESS if supported else StorageStatus.SOP_CLASS_NOT_SUPPORTED
            )
        )
