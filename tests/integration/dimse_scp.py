"""A StorageScp on a free loopback port with an `accept` that remembers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dicomnode.config import DimseSettings
from dicomnode.dimse import StorageScp
from dicomnode.metrics import Metrics
from dicomnode.ports import ReceivedInstance
from dicomnode.status import StorageStatus


class Recorder:
    """An `accept` that keeps the records and leaves the files where they are."""

    def __init__(self) -> None:
        self.received: list[ReceivedInstance] = []
        self.answer: StorageStatus | Exception = StorageStatus.SUCCESS
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, received: ReceivedInstance) -> StorageStatus:
        self.entered.set()
        assert self.gate.wait(20)
        if isinstance(self.answer, Exception):
            raise self.answer
        self.received.append(received)
        return self.answer


class RunningScp:
    def __init__(self, scp: StorageScp, recorder: Recorder, metrics: Metrics, root: Path) -> None:
        self.scp = scp
        self.recorder = recorder
        self.metrics = metrics
        self.incoming = root
        self.host = "127.0.0.1"

    @property
    def port(self) -> int:
        return self.scp.port

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@contextmanager
def running_scp(
    incoming: Path,
    *,
    has_room: Callable[[], bool] = lambda: True,
    services: Any = (),
    **settings: Any,
) -> Iterator[RunningScp]:
    values = {"accept_unknown_peers": True} | settings
    dimse = DimseSettings.model_validate(values).model_copy(update={"port": 0})
    recorder, metrics = Recorder(), Metrics()
    scp = StorageScp(dimse, incoming, recorder, metrics, has_room=has_room, services=services)
    scp.start()
    try:
        yield RunningScp(scp, recorder, metrics, incoming)
    finally:
        recorder.gate.set()
        scp.stop(2.0)
