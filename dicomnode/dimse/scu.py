"""What this node sends: documents to a PACS, and `dicomnode echo` and `send`.

A document leaves exactly as it is on disk: its data set's bytes, in its own transfer
syntax, so what was written is what arrives. Only for a peer that takes nothing but
Implicit VR Little Endian is one of our own documents encoded again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import UID

from dicomnode.config import DestinationSettings
from dicomnode.dimse.part_ten import FileMeta, read_file_meta
from dicomnode.dimse.peer_errors import AssociationEnded
from dicomnode.dimse.requestor import MAXIMUM_CONTEXTS, RequestedAssociation
from dicomnode.dimse.syntaxes import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    VERIFICATION,
)
from dicomnode.errors import DeliveryRefused, DestinationUnavailable, NotAnInstance
from dicomnode.ports import Outgoing
from dicomnode.status import StatusCategory, categorise

DOCUMENT_TRANSFER_SYNTAXES = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
"""What documents are written in; a context of its own for each, so that the peer says
which it takes."""

_RESULTS = {
    1: "User Rejection",
    2: "No Reason",
    3: "Abstract Syntax Not Supported",
    4: "Transfer Syntaxes Not Supported",
}


@dataclass(frozen=True, kw_only=True)
class SendResult:
    """What became of one file."""

    path: Path
    status: int | None
    """The peer's status; None when the file could not be offered."""
    message: str

    @property
    def stored(self) -> bool:
        return self.status is not None and categorise(self.status) is StatusCategory.STORED


class DimseDestination:
    """A PACS that takes documents by C-STORE; fulfils `ports.Destination`."""

    def __init__(self, settings: DestinationSettings, calling_ae_title: str) -> None:
        assert settings.host is not None and settings.port is not None
        assert settings.ae_title is not None
        self.name = settings.name
        self._host = settings.host
        self._port = settings.port
        self._called_ae_title = settings.ae_title
        self._calling_ae_title = calling_ae_title
        self._timeout = settings.timeout_seconds

    @contextmanager
    def connect(self, sop_class_uids: Sequence[str]) -> Iterator[_DocumentSession]:
        """An association for these SOP classes. Raises `DestinationUnavailable`."""
        peer = _describe(self._host, self._port, self._called_ae_title, self.name)
        proposals = [
            (sop_class, syntax)
            for sop_class in dict.fromkeys(sop_class_uids)
            for syntax in DOCUMENT_TRANSFER_SYNTAXES
        ]
        with (
            _told(peer),
            RequestedAssociation.open(
                self._host,
                self._port,
                called_ae_title=self._called_ae_title,
                calling_ae_title=self._calling_ae_title,
                proposals=proposals[:MAXIMUM_CONTEXTS],
                timeout_seconds=self._timeout,
            ) as association,
        ):
            yield _DocumentSession(association, peer)


class _DocumentSession:
    """Fulfils `ports.DestinationSession`."""

    def __init__(self, association: RequestedAssociation, peer: str) -> None:
        self._association = association
        self._peer = peer

    def send(self, document: Outgoing) -> int:
        """C-STORE of a document as it is on disk; the peer's status."""
        try:
            meta = read_file_meta(document.path)
        except (NotAnInstance, OSError) as error:
            raise DeliveryRefused(
                f"document {document.sop_instance_uid} cannot be read from disk: {error}"
            ) from error
        implicit = meta.sop_class_uid, IMPLICIT_VR_LITTLE_ENDIAN
        with _told(self._peer):
            if (
                meta.transfer_syntax_uid == EXPLICIT_VR_LITTLE_ENDIAN
                and _pair(meta) not in self._association.accepted
                and implicit in self._association.accepted
            ):
                return _store_implicit(self._association, document.path, meta)
            return _store(self._association, self._peer, document.path, meta)


def echo(
    host: str,
    port: int,
    *,
    called_ae_title: str = "ANY-SCP",
    calling_ae_title: str = "DICOMNODE",
    timeout_seconds: float = 30.0,
) -> int:
    """C-ECHO; the peer's status. Raises `DestinationUnavailable`."""
    peer = _describe(host, port, called_ae_title)
    with (
        _told(peer),
        RequestedAssociation.open(
            host,
            port,
            called_ae_title=called_ae_title,
            calling_ae_title=calling_ae_title,
            proposals=[(VERIFICATION, IMPLICIT_VR_LITTLE_ENDIAN)],
            timeout_seconds=timeout_seconds,
        ) as association,
    ):
        if not association.accepted:
            raise DeliveryRefused(
                f"{peer}: {_why(association, (VERIFICATION, IMPLICIT_VR_LITTLE_ENDIAN))}"
            )
        return association.echo()


def send_files(
    host: str,
    port: int,
    paths: Iterable[Path],
    *,
    called_ae_title: str = "ANY-SCP",
    calling_ae_title: str = "DICOMNODE",
    timeout_seconds: float = 30.0,
) -> Iterator[SendResult]:
    """C-STORE of each file, proposing exactly the files' pairs of SOP class and transfer
    syntax; one result per file, those that cannot be read or offered included.

    Raises `DestinationUnavailable` when the peer cannot be reached or breaks off.
    """
    peer = _describe(host, port, called_ae_title)
    readable: list[tuple[Path, FileMeta]] = []
    for path in paths:
        try:
            readable.append((path, read_file_meta(path)))
        except (NotAnInstance, OSError) as error:
            yield SendResult(path=path, status=None, message=str(error))
    for batch in _batches(readable):
        with (
            _told(peer),
            RequestedAssociation.open(
                host,
                port,
                called_ae_title=called_ae_title,
                calling_ae_title=calling_ae_title,
                proposals=list(dict.fromkeys(_pair(meta) for _, meta in batch)),
                timeout_seconds=timeout_seconds,
            ) as association,
        ):
            for path, meta in batch:
                yield _send_file(association, peer, path, meta)


def _send_file(
    association: RequestedAssociation, peer: str, path: Path, meta: FileMeta
) -> SendResult:
    try:
        status = _store(association, peer, path, meta)
    except DeliveryRefused as refused:
        return SendResult(path=path, status=None, message=str(refused))
    return SendResult(path=path, status=status, message=f"{peer} answered 0x{status:04X}")


def _store(association: RequestedAssociation, peer: str, path: Path, meta: FileMeta) -> int:
    context_id = association.accepted.get(_pair(meta))
    if context_id is None:
        raise DeliveryRefused(
            f"{peer} cannot take {meta.sop_instance_uid}: {_why(association, _pair(meta))}"
        )
    with path.open("rb") as file:
        file.seek(meta.data_set_offset)
        return association.store(
            context_id,
            data_set=file,
            sop_class_uid=meta.sop_class_uid,
            sop_instance_uid=meta.sop_instance_uid,
        )


def _store_implicit(association: RequestedAssociation, path: Path, meta: FileMeta) -> int:
    """The same data set in Implicit VR Little Endian, the transfer syntax that every peer
    must take (PS3.5 10.1) and some take alone."""
    encoded = DicomBytesIO()
    encoded.is_implicit_VR, encoded.is_little_endian = True, True
    write_dataset(encoded, dcmread(path))
    return association.store(
        association.accepted[meta.sop_class_uid, IMPLICIT_VR_LITTLE_ENDIAN],
        data_set=BytesIO(encoded.getvalue()),
        sop_class_uid=meta.sop_class_uid,
        sop_instance_uid=meta.sop_instance_uid,
    )


def _batches(
    files: Iterable[tuple[Path, FileMeta]],
) -> Iterator[list[tuple[Path, FileMeta]]]:
    """Files of one association each: as many as its presentation contexts can hold."""
    batch: list[tuple[Path, FileMeta]] = []
    pairs: set[tuple[str, str]] = set()
    for path, meta in files:
        if _pair(meta) not in pairs and len(pairs) == MAXIMUM_CONTEXTS:
            yield batch
            batch, pairs = [], set()
        batch.append((path, meta))
        pairs.add(_pair(meta))
    if batch:
        yield batch


def _pair(meta: FileMeta) -> tuple[str, str]:
    return meta.sop_class_uid, meta.transfer_syntax_uid


def _why(association: RequestedAssociation, pair: tuple[str, str]) -> str:
    names = ", ".join(UID(uid).name for uid in pair)
    result = association.results.get(pair)
    if result is None:
        return f"{names} was not proposed"
    return f"{names}: {_RESULTS.get(result, f'result {result}')}"


def _describe(host: str, port: int, called_ae_title: str, name: str = "") -> str:
    address = f"{host}:{port}, called AE '{called_ae_title}'"
    return f"{name} ({address})" if name else address


@contextmanager
def _told(peer: str) -> Iterator[None]:
    """The upper layer's errors in the words of the destination."""
    try:
        yield
    except AssociationEnded as ended:
        raise DestinationUnavailable(f"no association with {peer}: {ended}") from ended
