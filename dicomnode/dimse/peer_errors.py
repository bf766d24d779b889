"""What can go wrong between two peers of the upper layer, and how it is answered.

None of these leaves the package: an association ends with one of them and says so in its
log event and in `dicomnode_associations_rejected_total{reason}`.
"""

from __future__ import annotations

import enum


class AbortReason(enum.IntEnum):
    """Why the service provider aborts (PS3.8 Table 9-26)."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    UNRECOGNIZED_PDU_PARAMETER = 4
    UNEXPECTED_PDU_PARAMETER = 5
    INVALID_PDU_PARAMETER_VALUE = 6


class AssociationEnded(Exception):
    """The association is over, for a reason other than an orderly release.

    `code` is one word for metrics and logs."""

    code = "ended"


class ProtocolViolation(AssociationEnded):
    """The peer broke PS3.7 or PS3.8; answered with an A-ABORT that carries `reason`."""

    code = "protocol_violation"

    def __init__(self, reason: AbortReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class PeerSilent(AssociationEnded):
    """Nothing, or too little, arrived in time; answered with an A-ABORT."""

    code = "silent"


class PeerClosed(AssociationEnded):
    """The transport connection is gone; nothing can be answered."""

    code = "connection_lost"


class PeerAborted(AssociationEnded):
    """The peer sent an A-ABORT; the connection is closed (PS3.8 AA-3)."""

    code = "aborted_by_peer"


class InstanceTooLarge(AssociationEnded):
    """A data set exceeds `dimse.maximum_instance_bytes`; answered with an A-ABORT."""

    code = "too_large"


class NodeStopping(AssociationEnded):
    """This node shuts down; answered with an A-ABORT."""

    code = "stopping"


class AssociationRejected(AssociationEnded):
    """The peer answered our request with an A-ASSOCIATE-RJ (PS3.8 Table 9-21)."""

    code = "rejected_by_peer"

    def __init__(self, result: int, source: int, reason: int) -> None:
        text = _REJECTIONS.get((source, reason), f"source {source}, reason {reason}")
        super().__init__(f"the peer rejected the association: {text}")
        self.is_transient = result == _REJECTED_TRANSIENT


_REJECTED_TRANSIENT = 2
_REJECTIONS = {
    (1, 1): "no reason given",
    (1, 2): "application context name not supported",
    (1, 3): "calling AE title not recognized; ask its administrator to register it",
    (1, 7): "called AE title not recognized; check the destination's ae_title",
    (2, 1): "no reason given",
    (2, 2): "protocol version not supported",
    (3, 1): "temporary congestion",
    (3, 2): "local limit exceeded",
}
