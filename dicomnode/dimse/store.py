"""C-STORE: a data set goes to a file as it arrives, then `accept` decides (PS3.4 Annex B)."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from dicomnode.dimse.command import CommandField
from dicomnode.dimse.header import HeaderFacts, read_facts
from dicomnode.dimse.message import Reception, Request, Response
from dicomnode.dimse.part_ten import PartTenFile, encode_file_meta
from dicomnode.dimse.peer_errors import InstanceTooLarge
from dicomnode.dimse.syntaxes import STORAGE_SOP_CLASSES, TRANSFER_SYNTAXES
from dicomnode.dimse.uid import is_uid, parse_uid
from dicomnode.errors import NotAnInstance, StorageFull
from dicomnode.logs import get_logger
from dicomnode.metrics import Metrics
from dicomnode.ports import Clock, ReceivedInstance
from dicomnode.status import StorageStatus

log = get_logger(__name__)

Accept = Callable[[ReceivedInstance], StorageStatus]
"""Makes a received instance durable and says what to answer. The file is its to move."""


class _Refused(Exception):
    """Answer `status`; `outcome` is the label of the metric."""

    def __init__(self, status: StorageStatus, outcome: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.outcome = outcome
        self.message = message


class StoreService:
    """Receives instances.

    ====================================  ======  =====================================
    What came                             Status  Meaning to the sender (PS3.4 B.2.3)
    ====================================  ======  =====================================
    an instance that `accept` has taken   0x0000  durable here
    no room, or `accept` failed           0xA700  Out of Resources; try again later
    SOP class or instance disagrees       0xA900  Data Set does not match SOP Class
    a UID that is none, not a data set    0xC000  Cannot Understand; do not try again
    another SOP class than the context's  0x0122  SOP Class not supported
    more than `maximum_instance_bytes`    abort   never acceptable
    ====================================  ======  =====================================

    Instances that reach `accept` are counted there; what is refused before is counted here.
    """

    command_field: int = CommandField.C_STORE_RQ

    def __init__(
        self,
        *,
        incoming: Path,
        accept: Accept,
        metrics: Metrics,
        has_room: Callable[[], bool],
        maximum_instance_bytes: int,
        further_sop_classes: Sequence[str] = (),
        clock: Clock = lambda: datetime.now(UTC),
    ) -> None:
        self.incoming = incoming
        self.accept = accept
        self.metrics = metrics
        self.has_room = has_room
        self.maximum_instance_bytes = maximum_instance_bytes
        self.clock = clock
        self.presentation_contexts: Mapping[str, tuple[str, ...]] = dict.fromkeys(
            (*STORAGE_SOP_CLASSES, *further_sop_classes), TRANSFER_SYNTAXES
        )

    def begin(self, request: Request) -> Reception:
        return _StoreReception(self, request)


class _StoreReception:
    """One C-STORE. From the first refusal on, the rest of the data set is dropped."""

    def __init__(self, service: StoreService, request: Request) -> None:
        self._service = service
        self._request = request
        self._started = time.perf_counter()
        self._received_bytes = 0
        self._file: PartTenFile | None = None
        self._refused: _Refused | None = None
        try:
            self._file = self._open()
        except _Refused as refused:
            self._refused = refused

    def write(self, data: memoryview) -> None:
        self._received_bytes += len(data)
        if self._received_bytes > self._service.maximum_instance_bytes:
            self._count("too_large")
            raise InstanceTooLarge(
                f"a data set of more than {self._service.maximum_instance_bytes} bytes; "
                "raise dimse.maximum_instance_bytes if such instances are wanted"
            )
        if self._file is None:
            return
        try:
            self._file.write(data)
        except OSError as error:
            self._discard()
            self._refused = _out_of_resources(error)

    def finish(self) -> Iterator[Response]:
        comment = None
        try:
            status = self._decide()
        except _Refused as refused:
            self._count(refused.outcome)
            status = refused.status
            comment = refused.message
        finally:
            if self._file is not None:
                self._file.close()
        if status != StorageStatus.SUCCESS:
            self._discard()
        try:
            yield Response(command=self._request.command.response(status, error_comment=comment))
        finally:
            # after the answer is out, or has failed: the peer need not wait for our log
            self._tell(status, comment)

    def abandon(self) -> None:
        self._discard()

    def _open(self) -> PartTenFile:
        command, context = self._request.command, self._request.context
        if context.abstract_syntax not in self._service.presentation_contexts or (
            command.affected_sop_class_uid != context.abstract_syntax
        ):
            raise _Refused(
                StorageStatus.SOP_CLASS_NOT_SUPPORTED,
                "sop_class_not_supported",
                "SOP Class UID is not that of the presentation context",
            )
        try:
            sop_instance_uid = parse_uid(
                command.affected_sop_instance_uid or "", what="Affected SOP Instance UID"
            )
        except NotAnInstance as error:
            raise _cannot_understand(error) from error
        if not command.has_data_set:
            raise _cannot_understand(NotAnInstance("the C-STORE-RQ comes without a data set"))
        if not self._service.has_room():
            raise _Refused(
                StorageStatus.OUT_OF_RESOURCES, "out_of_resources", "no room for instances"
            )
        try:
            return PartTenFile(
                self._service.incoming,
                encode_file_meta(
                    sop_class_uid=context.abstract_syntax,
                    sop_instance_uid=sop_instance_uid,
                    transfer_syntax_uid=context.transfer_syntax,
                    calling_ae_title=self._request.requestor.calling_ae_title,
                ),
            )
        except OSError as error:
            raise _out_of_resources(error) from error

    def _decide(self) -> StorageStatus:
        if self._refused is not None:
            raise self._refused
        assert self._file is not None
        try:
            self._file.complete()
            facts = read_facts(self._file.read_at, self._request.context.transfer_syntax)
        except NotAnInstance as error:
            raise _cannot_understand(error) from error
        except OSError as error:
            raise _out_of_resources(error) from error
        self._check_identity(facts)
        self._file.close()
        return self._hand_over(self._received(facts, self._file))

    def _check_identity(self, facts: HeaderFacts) -> None:
        command = self._request.command
        for keyword, asked, found in (
            ("SOP Class UID", command.affected_sop_class_uid, facts.sop_class_uid),
            ("SOP Instance UID", command.affected_sop_instance_uid, facts.sop_instance_uid),
        ):
            if asked != found:
                raise _Refused(
                    StorageStatus.DATA_SET_DOES_NOT_MATCH_SOP_CLASS,
                    "does_not_match_sop_class",
                    f"{keyword} of the data set is not that of the request",
                )

    def _received(self, facts: HeaderFacts, file: PartTenFile) -> ReceivedInstance:
        return ReceivedInstance(
            path=file.path,
            size=file.size,
            digest=file.digest(),
            sop_class_uid=facts.sop_class_uid,
            sop_instance_uid=facts.sop_instance_uid,
            series_instance_uid=facts.series_instance_uid,
            study_instance_uid=facts.study_instance_uid,
            transfer_syntax_uid=self._request.context.transfer_syntax,
            calling_ae_title=self._request.requestor.calling_ae_title,
            received_at=self._service.clock(),
            peer_label=self._request.requestor.label,
            accession_number=facts.accession_number,
            patient_id=facts.patient_id,
            modality=facts.modality,
            own_product=facts.own_product,
        )

    def _hand_over(self, received: ReceivedInstance) -> StorageStatus:
        try:
            return self._service.accept(received)
        except StorageFull as error:
            raise _out_of_resources(error) from error
        except NotAnInstance as error:
            raise _cannot_understand(error) from error
        except Exception as error:
            # whatever broke, the sender must keep its copy; the text of a foreign error may
            # hold a row of the index, so only its kind and place are told
            log.error(
                "instance.failed",
                sop_instance_uid=received.sop_instance_uid,
                error=type(error).__name__,
                at=_place(error),
            )
            raise _Refused(
                StorageStatus.OUT_OF_RESOURCES, "failed", "could not be stored; try again later"
            ) from error

    def _tell(self, status: StorageStatus, comment: str | None) -> None:
        seconds = time.perf_counter() - self._started
        self._service.metrics.store_duration.observe(seconds)
        sop_instance_uid = self._request.command.affected_sop_instance_uid or ""
        told = log.info if status == StorageStatus.SUCCESS else log.warning
        told(
            "instance.received",
            sop_instance_uid=sop_instance_uid if is_uid(sop_instance_uid) else "not a UID",
            calling_ae_title=self._request.requestor.calling_ae_title,
            status=f"0x{status:04X}",
            seconds=round(seconds, 6),
            bytes=self._received_bytes,
            **({"why": comment} if comment else {}),
        )

    def _count(self, outcome: str) -> None:
        label = self._request.requestor.label
        self._service.metrics.instances_received.labels(label, outcome).inc()

    def _discard(self) -> None:
        if self._file is not None:
            self._file.discard()
            self._file = None


def _cannot_understand(error: NotAnInstance) -> _Refused:
    return _Refused(StorageStatus.CANNOT_UNDERSTAND, "cannot_understand", str(error))


def _out_of_resources(error: OSError | StorageFull) -> _Refused:
    finding = error.strerror or "error" if isinstance(error, OSError) else "no space left"
    return _Refused(StorageStatus.OUT_OF_RESOURCES, "out_of_resources", f"cannot write: {finding}")


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
