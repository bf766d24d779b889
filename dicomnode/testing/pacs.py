"""A small storage SCP that plays the PACS: it keeps every object in memory and tells
whoever waits. For the demo and for tests, not for care."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    Comprehensive3DSRStorage,
    SecondaryCaptureImageStorage,
    Verification,
)


class ReceivingPacs:
    """Keeps what it was sent, by SOP Instance UID."""

    def __init__(self, *, ae_title: str = "PACS", answer: Callable[[Dataset], int] | None = None):
        self._ae = AE(ae_title=ae_title)
        for context in (Comprehensive3DSRStorage, SecondaryCaptureImageStorage, Verification):
            self._ae.add_supported_context(context)
        self._answer = answer or (lambda _: 0x0000)
        self._arrived = threading.Condition(threading.RLock())
        self.received: dict[str, Dataset] = {}
        self.stores = 0
        """C-STORE requests that were answered, repeated ones included."""
        self.port = 0

    def start(self, port: int = 0) -> None:
        """Listen on loopback; `port` 0 takes a free one."""
        server = self._ae.start_server(
            ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )
        if server is None:
            raise RuntimeError("pynetdicom started no server")
        self.port = server.server_address[1]

    def stop(self) -> None:
        self._ae.shutdown()

    def documents(self, sop_class_uid: str) -> list[Dataset]:
        """What arrived of one SOP class, in the order of arrival."""
        with self._arrived:
            return [ds for ds in self.received.values() if sop_class_uid == ds.SOPClassUID]

    @property
    def reports(self) -> list[Dataset]:
        return self.documents(Comprehensive3DSRStorage)

    @property
    def heatmaps(self) -> list[Dataset]:
        return self.documents(SecondaryCaptureImageStorage)

    def wait_for(self, satisfied: Callable[[ReceivingPacs], bool], timeout: float) -> bool:
        """Wait until `satisfied(self)`; False when the time is over first."""
        with self._arrived:
            return self._arrived.wait_for(lambda: satisfied(self), timeout)

    def _store(self, event: evt.Event) -> int:
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        status = self._answer(dataset)
        with self._arrived:
            self.stores += 1
            if status == 0x0000:
                self.received[dataset.SOPInstanceUID] = dataset
            self._arrived.notify_all()
        return status


@contextmanager
def receiving_pacs(*, ae_title: str = "PACS", port: int = 0) -> Iterator[ReceivingPacs]:
    """A PACS that listens while the block runs."""
    pacs = ReceivingPacs(ae_title=ae_title)
    pacs.start(port)
    try:
        yield pacs
    finally:
        pacs.stop()
