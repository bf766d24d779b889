"""Who may associate: a table of decisions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dicomnode.config import DimseSettings
from dicomnode.dimse import syntaxes
from dicomnode.dimse.admission import UNKNOWN_PEER, Admitted, Rejection, admit
from dicomnode.dimse.associate import APPLICATION_CONTEXT, AssociateRequest, ProposedContext

SETTINGS = DimseSettings.model_validate(
    {
        "peers": [
            {"name": "xray1", "ae_title": "XRAY1"},
            {"name": "xray2", "ae_title": "XRAY2", "host": "10.0.0.5"},
        ]
    }
)
SUPPORTED = {syntaxes.COMPUTED_RADIOGRAPHY: syntaxes.TRANSFER_SYNTAXES}
REQUEST = AssociateRequest(
    protocol_version=1,
    called_ae_title="DICOMNODE",
    calling_ae_title="XRAY1",
    application_context=APPLICATION_CONTEXT,
    contexts=(
        ProposedContext(
            context_id=1,
            abstract_syntax=syntaxes.COMPUTED_RADIOGRAPHY,
            transfer_syntaxes=("1.2.840.10008.1.2.4.100", syntaxes.IMPLICIT_VR_LITTLE_ENDIAN,
                               syntaxes.EXPLICIT_VR_LITTLE_ENDIAN),
        ),
        ProposedContext(
            context_id=3,
            abstract_syntax=syntaxes.COMPUTED_RADIOGRAPHY,
            transfer_syntaxes=("1.2.840.10008.1.2.4.100",),
        ),
        ProposedContext(context_id=5, abstract_syntax="1.2.3", transfer_syntaxes=()),
        ProposedContext(
            context_id=7, abstract_syntax=syntaxes.COMPUTED_RADIOGRAPHY, transfer_syntaxes=()
        ),
    ),
    maximum_length=0,
    raw_ae_titles=bytes(32),
)  # fmt: skip


def decide(
    request: AssociateRequest, address: str = "10.0.0.5", settings: DimseSettings = SETTINGS
) -> Admitted | Rejection:
    return admit(request, address=address, settings=settings, supported=SUPPORTED)


@pytest.mark.parametrize(
    ("change", "rejection"),
    [
        ({"protocol_version": 2}, Rejection.PROTOCOL_VERSION),
        ({"application_context": "1.2"}, Rejection.APPLICATION_CONTEXT),
        ({"called_ae_title": "OTHER"}, Rejection.CALLED_AE_TITLE),
        ({"calling_ae_title": "XRAY3"}, Rejection.CALLING_AE_TITLE),
        ({"calling_ae_title": "xray1"}, Rejection.CALLING_AE_TITLE),
        ({"calling_ae_title": ""}, Rejection.CALLING_AE_TITLE),
        ({"calling_ae_title": "A\nB"}, Rejection.CALLING_AE_TITLE),
    ],
)
def test_rejections(change: dict[str, str], rejection: Rejection) -> None:
    assert decide(replace(REQUEST, **change)) is rejection  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("address", "admitted"),
    [("10.0.0.5", True), ("::ffff:10.0.0.5", True), ("10.0.0.6", False), ("fe80::1%eth0", False)],
)
def test_a_pinned_peer_comes_from_its_address_only(address: str, admitted: bool) -> None:
    answer = decide(replace(REQUEST, calling_ae_title="XRAY2"), address)
    assert isinstance(answer, Admitted) is admitted


def test_unknown_peers_are_admitted_when_the_settings_say_so_but_cannot_pose_as_known() -> None:
    open_to_all = SETTINGS.model_copy(update={"accept_unknown_peers": True})
    answer = decide(replace(REQUEST, calling_ae_title="NEW"), settings=open_to_all)
    assert isinstance(answer, Admitted)
    assert answer.requestor.label == UNKNOWN_PEER
    posing = decide(replace(REQUEST, calling_ae_title="XRAY2"), "10.9.9.9", open_to_all)
    assert posing is Rejection.CALLING_AE_TITLE


def test_the_first_proposed_transfer_syntax_that_is_supported_is_taken() -> None:
    answer = decide(REQUEST)
    assert isinstance(answer, Admitted)
    assert [(a.context_id, a.result) for a in answer.answers] == [(1, 0), (3, 4), (5, 3), (7, 4)]
    assert set(answer.contexts) == {1}
    assert answer.contexts[1].transfer_syntax == syntaxes.IMPLICIT_VR_LITTLE_ENDIAN
