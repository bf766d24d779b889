"""The composition root: the one place where adapters meet the domain.

`build` makes the parts, `Node.start` sets them going in the order in which they need
each other, `Node.stop` ends them in the opposite order. Every thread has a human name:
storage-scp, worker-1, reporter, delivery-<destination>, web, model-server.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from dicomnode import __version__
from dicomnode.config import DestinationSettings, Settings
from dicomnode.delivery import DeliveryWorker
from dicomnode.dimse import DimseDestination, StorageScp
from dicomnode.intake import Intake
from dicomnode.jobs import JobKind, JobState
from dicomnode.logs import get_logger
from dicomnode.metrics import Metrics
from dicomnode.pipeline import Analyst, Pipeline
from dicomnode.ports import Destination
from dicomnode.retry import RetryPolicy
from dicomnode.sandbox import SandboxPreparer
from dicomnode.serving import DirectoryModelCards, ServingClient
from dicomnode.serving.embedded import EmbeddedModelServer
from dicomnode.sr import release_tables
from dicomnode.storage import Storage, open_storage
from dicomnode.views import Views
from dicomnode.web import Health, WebServer, build_app
from dicomnode.worker import Bell, FailureDesk, JobThread, Siesta, Worker

log = get_logger(__name__)

STOP_SECONDS = 20.0
"""How long an orderly stop waits for the work in hand."""


SIESTA_SECONDS = 10.0
"""Silence after which memory that only work needs is given back."""


def utc_now() -> datetime:
    return datetime.now(UTC)


def new_uid() -> str:
    """A UUID-derived UID (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid4().int}"


@dataclass(kw_only=True)
class Node:
    """A node with all its parts."""

    settings: Settings
    metrics: Metrics
    storage: Storage
    bell: Bell
    preparer: SandboxPreparer
    predictor: ServingClient
    model_server: EmbeddedModelServer | None
    threads: list[JobThread]
    scp: StorageScp
    siesta: Siesta
    web: WebServer = field(init=False)

    def __post_init__(self) -> None:
        views = Views(files=self.storage.files, index=self.storage.index)
        app = build_app(
            studies=views.studies,
            study=views.study,
            report=views.report,
            readiness=self.readiness,
            liveness=self.liveness,
            metrics=self.metrics,
            refresh_metrics=self.refresh_metrics,
        )
        web = self.settings.web
        self.web = WebServer(app, host=web.host, port=web.port)

    def start(self) -> None:
        """Recover what a crash left, then start working, then listening."""
        released = self.storage.recover(now=utc_now())
        log.info("store.recovered", **released)
        self.web.start()
        if self.model_server is not None:
            self.model_server.start()
        for thread in self.threads:
            thread.start()
        self.siesta.start()
        self.scp.start()
        log.info(
            "node.started",
            ae_title=self.settings.dimse.ae_title,
            port=self.settings.dimse.port,
            web_port=self.settings.web.port,
        )

    def stop(self) -> None:
        """Stop listening, finish what is in hand, then let go of everything."""
        self.scp.stop()
        for thread in self.threads:
            thread.stopping.set()
        until = time.monotonic() + STOP_SECONDS
        for thread in self.threads:
            thread.stop(max(0.0, until - time.monotonic()))
        self.siesta.stop()
        self.predictor.close()
        self.preparer.close()
        if self.model_server is not None:
            self.model_server.stop()
        self.web.stop()
        self.storage.close()
        log.info("node.stopped")

    def readiness(self) -> Health:
        """Ready: the SCP listens, the store is writable, a model backend answers."""
        return Health(
            checks={
                "storage_scp": "ok" if self.scp.listening else "not listening",
                "store": self.storage.files.trouble() or "ok",
                "model": "ok" if self.predictor.ready() else self._no_model(),
            }
        )

    def _no_model(self) -> str:
        serving = self.settings.serving
        return (
            f"no backend of {', '.join(serving.targets)} serves {serving.model_name!r}; "
            f"is a version published under {serving.model_base_path}?"
        )

    def liveness(self) -> Health:
        """Alive: every thread that was started still runs."""
        return Health(
            checks={
                thread.name: "ok" if thread.alive else "thread ended; restart the node"
                for thread in self.threads
            }
        )

    def refresh_metrics(self) -> None:
        """Figures that are read when they are asked for."""
        counts = self.storage.queue.counts()
        for state in JobState:
            self.metrics.jobs.labels(state.value).set(counts.get(state, 0))
        self.metrics.store_free_bytes.set(self.storage.files.free_bytes())
        self.metrics.store_minimum_free_bytes.set(self.settings.storage.minimum_free_bytes)


def build(settings: Settings) -> Node:
    """Make a node that is not yet started. Raises `ConfigError`."""
    metrics = Metrics()
    storage = open_storage(settings.storage, single_owner=True)
    bell = Bell()
    preparer = build_preparer(settings)
    predictor, cards = build_model_client(settings, metrics)
    policy = RetryPolicy(**settings.retry.model_dump())
    desk = FailureDesk(index=storage.index, queue=storage.queue, clock=utc_now, policy=policy)
    pipeline = Pipeline(
        analyst=Analyst(preparer=preparer, predictor=predictor, cards=cards, metrics=metrics),
        files=storage.files,
        index=storage.index,
        cards=cards,
        clock=utc_now,
        new_uid=new_uid,
        metrics=metrics,
        model_name=settings.serving.model_name,
        software_version=__version__,
        destinations=[destination.name for destination in settings.destinations],
    )
    owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"

    def worker(name: str, kind: JobKind, handle: Callable[..., str]) -> Worker:
        return Worker(
            name=name,
            kind=kind,
            handle=handle,
            queue=storage.queue,
            desk=desk,
            clock=utc_now,
            bell=bell,
            policy=policy,
            lease_seconds=settings.worker.lease_seconds,
            owner=owner,
        )

    workers = [
        worker(f"worker-{number}", JobKind.ANALYSE, pipeline.analyse)
        for number in range(1, settings.worker.analysers + 1)
    ]
    workers.append(worker("reporter", JobKind.REPORT, pipeline.report))
    deliveries = [
        DeliveryWorker(
            destination=build_destination(destination, settings),
            files=storage.files,
            index=storage.index,
            queue=storage.queue,
            desk=desk,
            clock=utc_now,
            bell=bell,
            metrics=metrics,
            policy=policy,
            lease_seconds=settings.worker.lease_seconds,
            owner=owner,
        )
        for destination in settings.destinations
    ]
    intake = Intake(
        files=storage.files,
        index=storage.index,
        clock=utc_now,
        metrics=metrics,
        idle_seconds=settings.study.idle_seconds,
        wake=bell.ring,
    )
    return Node(
        settings=settings,
        metrics=metrics,
        storage=storage,
        bell=bell,
        preparer=preparer,
        predictor=predictor,
        model_server=build_model_server(settings),
        threads=[*(w.thread for w in workers), *(d.thread for d in deliveries)],
        siesta=Siesta(bell=bell, rest=give_memory_back, silence_seconds=SIESTA_SECONDS),
        scp=StorageScp(
            settings.dimse,
            incoming=storage.files.incoming,
            accept=intake.accept,
            has_room=storage.files.has_room,
            metrics=metrics,
        ),
    )


def give_memory_back() -> None:
    """Drop what can be read again, and return freed pages to the system (glibc keeps
    them in every thread's arena otherwise)."""
    release_tables()
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def build_preparer(settings: Settings) -> SandboxPreparer:
    """The decoder sandbox as the settings bound it."""
    return SandboxPreparer(
        slots=settings.worker.analysers,
        memory_bytes=settings.worker.decode_memory_bytes,
        timeout_seconds=settings.worker.decode_timeout_seconds,
        maximum_pixels=settings.worker.maximum_pixels,
    )


def build_model_client(
    settings: Settings, metrics: Metrics
) -> tuple[ServingClient, DirectoryModelCards]:
    """The client of the replicas, and the cards of what they serve."""
    serving = settings.serving
    return ServingClient(serving, metrics=metrics), DirectoryModelCards(serving.model_base_path)


def build_model_server(settings: Settings) -> EmbeddedModelServer | None:
    """The embedded model server on the first target, when the settings ask for it."""
    serving = settings.serving
    if serving.engine != "embedded":
        return None
    host, _, port = serving.targets[0].removeprefix("dns:///").rpartition(":")
    return EmbeddedModelServer(
        host=host,
        port=int(port),
        rest_port=serving.rest_port,
        model_name=serving.model_name,
        model_base_path=serving.model_base_path,
    )


def build_destination(destination: DestinationSettings, settings: Settings) -> Destination:
    """The adapter for a destination's kind; dicomweb-client is imported only when used."""
    if destination.kind == "dicomweb":
        from dicomnode.dicomweb import DicomwebDestination  # noqa: PLC0415 requests stays out of nodes without it

        return DicomwebDestination(destination)
    return DimseDestination(destination, calling_ae_title=settings.dimse.ae_title)


def run(settings: Settings) -> int:
    """Run a node until SIGTERM or SIGINT; returns the exit code."""
    node = build(settings)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    try:
        node.start()
        stopping.wait()
    finally:
        node.stop()
    return 0
