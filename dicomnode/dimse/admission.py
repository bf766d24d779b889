"""Who may associate, and for what: a pure decision (PS3.8 9.3.4, Annex D.1)."""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from dicomnode.config import DimseSettings
from dicomnode.dimse.associate import (
    APPLICATION_CONTEXT,
    PROTOCOL_VERSION,
    AcceptedContext,
    AssociateRequest,
    ContextAnswer,
    ProposedContext,
)
from dicomnode.dimse.message import Requestor
from dicomnode.dimse.syntaxes import IMPLICIT_VR_LITTLE_ENDIAN

UNKNOWN_PEER = "unknown"
"""The metrics' name of every peer that is not in the settings: a label that peers could
choose freely would grow without bound."""

_ACCEPTANCE = 0
_ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
_TRANSFER_SYNTAXES_NOT_SUPPORTED = 4


class Rejection(enum.Enum):
    """Why an association is rejected: result, source, reason (PS3.8 Table 9-21) and what
    metrics and logs call it."""

    APPLICATION_CONTEXT = (1, 1, 2, "application_context_not_supported")
    CALLING_AE_TITLE = (1, 1, 3, "calling_ae_title_not_recognized")
    CALLED_AE_TITLE = (1, 1, 7, "called_ae_title_not_recognized")
    PROTOCOL_VERSION = (1, 2, 2, "protocol_version_not_supported")
    TEMPORARY_CONGESTION = (2, 3, 1, "temporary_congestion")
    LOCAL_LIMIT = (2, 3, 2, "local_limit_exceeded")

    @property
    def numbers(self) -> tuple[int, int, int]:
        return self.value[:3]

    @property
    def code(self) -> str:
        return self.value[3]


@dataclass(frozen=True, kw_only=True)
class Admitted:
    """The association is accepted, with an answer for each proposed context."""

    requestor: Requestor
    answers: tuple[ContextAnswer, ...]
    contexts: Mapping[int, AcceptedContext]


def admit(
    request: AssociateRequest,
    *,
    address: str,
    settings: DimseSettings,
    supported: Mapping[str, tuple[str, ...]],
) -> Admitted | Rejection:
    """What to answer to `request` from `address`, when there is room for it.

    `supported` holds the transfer syntaxes by abstract syntax. Of those that a context
    proposes, the first that is supported is taken: it is usually the one in which the
    instance exists.
    """
    if not request.protocol_version & PROTOCOL_VERSION:
        return Rejection.PROTOCOL_VERSION
    if request.application_context != APPLICATION_CONTEXT:
        return Rejection.APPLICATION_CONTEXT
    if settings.require_called_ae_title and request.called_ae_title != settings.ae_title:
        return Rejection.CALLED_AE_TITLE
    requestor = _recognise(request.calling_ae_title, address, settings)
    if requestor is None:
        return Rejection.CALLING_AE_TITLE
    answers = tuple(_answer(context, supported) for context in request.contexts)
    return Admitted(
        requestor=requestor,
        answers=answers,
        contexts={
            answer.context_id: AcceptedContext(
                context_id=answer.context_id,
                abstract_syntax=context.abstract_syntax,
                transfer_syntax=answer.transfer_syntax,
            )
            for context, answer in zip(request.contexts, answers, strict=True)
            if answer.result == _ACCEPTANCE
        },
    )


def is_ae_title(value: str) -> bool:
    """Whether `value` is an AE title without its padding (PS3.5 6.2)."""
    return 1 <= len(value) <= 16 and value.isascii() and value.isprintable() and "\\" not in value


def _recognise(ae_title: str, address: str, settings: DimseSettings) -> Requestor | None:
    if not is_ae_title(ae_title):
        return None
    peers = [peer for peer in settings.peers if peer.ae_title == ae_title]
    if any(peer.host is None or _same_address(peer.host, address) for peer in peers):
        return Requestor(calling_ae_title=ae_title, label=ae_title, address=address)
    if settings.accept_unknown_peers and not peers:
        return Requestor(calling_ae_title=ae_title, label=UNKNOWN_PEER, address=address)
    return None


def _same_address(pinned: str, address: str) -> bool:
    return _plain(pinned) == _plain(address)


def _plain(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """IPv4 also when the socket says `::ffff:10.0.0.5`; without the zone of IPv6."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed


def _answer(context: ProposedContext, supported: Mapping[str, tuple[str, ...]]) -> ContextAnswer:
    syntaxes = supported.get(context.abstract_syntax)
    # the transfer syntax of a context that is not accepted says nothing, but must be there
    proposed = context.transfer_syntaxes or (IMPLICIT_VR_LITTLE_ENDIAN,)
    if syntaxes is None:
        return ContextAnswer(
            context_id=context.context_id,
            result=_ABSTRACT_SYNTAX_NOT_SUPPORTED,
            transfer_syntax=proposed[0],
        )
    for syntax in context.transfer_syntaxes:
        if syntax in syntaxes:
            return ContextAnswer(
                context_id=context.context_id, result=_ACCEPTANCE, transfer_syntax=syntax
            )
    return ContextAnswer(
        context_id=context.context_id,
        result=_TRANSFER_SYNTAXES_NOT_SUPPORTED,
        transfer_syntax=proposed[0],
    )
