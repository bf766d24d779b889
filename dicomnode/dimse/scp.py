"""The Storage and Verification SCP: a listener and one thread per association."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from dicomnode.config import DimseSettings
from dicomnode.dimse.association import Acceptor, Association
from dicomnode.dimse.message import Service
from dicomnode.dimse.store import Accept, StoreService
from dicomnode.dimse.verification import VerificationService
from dicomnode.errors import ConfigError
from dicomnode.logs import get_logger
from dicomnode.metrics import Metrics
from dicomnode.ports import Clock

log = get_logger(__name__)

LOBBY = 16
"""Connections, beside the associations, that may be asking, being told no, or leaving."""

_BACKLOG = 128
_LEAVING_SECONDS = 1.0


class _Connection(NamedTuple):
    association: Association
    thread: threading.Thread


class StorageScp:
    """Listens for associations and hands every received instance to `accept`.

    `incoming` is an existing folder on the store's file system. `has_room` is asked before
    a data set is written; False answers 0xA700. `services` answer further command fields
    (N-ACTION, C-FIND ...). `accept` and the services are called by several threads.
    """

    def __init__(
        self,
        settings: DimseSettings,
        incoming: Path,
        accept: Accept,
        metrics: Metrics,
        *,
        has_room: Callable[[], bool] = lambda: True,
        services: Sequence[Service] = (),
        clock: Clock = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._stopping = threading.Event()
        self._metrics = metrics
        every_service: list[Service] = [
            VerificationService(),
            StoreService(
                incoming=incoming,
                accept=accept,
                metrics=metrics,
                has_room=has_room,
                maximum_instance_bytes=settings.maximum_instance_bytes,
                further_sop_classes=settings.storage_sop_classes,
                clock=clock,
            ),
            *services,
        ]
        self._acceptor = Acceptor(
            settings=settings,
            services={service.command_field: service for service in every_service},
            supported={
                abstract_syntax: transfer_syntaxes
                for service in every_service
                for abstract_syntax, transfer_syntaxes in service.presentation_contexts.items()
            },
            metrics=metrics,
            take_place=self._take_place,
            leave_place=self._leave_place,
            stopping=self._stopping.is_set,
        )
        self._lock = threading.Lock()
        self._connections: dict[Association, threading.Thread] = {}
        self._associations: set[Association] = set()
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._port: int = settings.port

    @property
    def listening(self) -> bool:
        """Whether new associations are taken."""
        return self._thread is not None and self._thread.is_alive() and not self._stopping.is_set()

    @property
    def port(self) -> int:
        """The port that is listened on (of use when the settings say 0)."""
        return self._port

    def start(self) -> None:
        """Listen. Raises `ConfigError` when the address cannot be had."""
        host, port = self._settings.host, self._settings.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        except OSError as error:
            raise ConfigError(
                [
                    f"dimse cannot listen on {host}:{port}: {error.strerror}; "
                    "change dimse.host or dimse.port, or stop what uses it"
                ]
            ) from error
        self._port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._listen, name="storage-scp", daemon=True)
        self._thread.start()
        log.info("scp.listening", host=host, port=self.port, ae_title=self._settings.ae_title)

    def stop(self, grace_seconds: float = 10.0) -> None:
        """Take no more associations, let running stores finish for `grace_seconds`, abort
        the rest. Nothing that was acknowledged is lost, whatever it interrupts."""
        self._stopping.set()
        deadline = time.monotonic() + grace_seconds
        if self._listener is not None:
            # close() alone would leave the thread in accept()
            _shut(self._listener)
        if self._thread is not None:
            self._thread.join(grace_seconds)
        if self._listener is not None:
            self._listener.close()
        with self._lock:
            running = dict(self._connections)
        for association in running:
            association.wake_if_idle()
        _join(running, deadline)
        for association, thread in running.items():
            if thread.is_alive():
                association.cut()
        _join(running, time.monotonic() + 1.0)
        log.info("scp.stopped", unfinished=sum(t.is_alive() for t in running.values()))

    def _listen(self) -> None:
        assert self._listener is not None
        number = 0
        while not self._stopping.is_set():
            try:
                connection, peer = self._listener.accept()
            except OSError as error:
                if not self._stopping.is_set():
                    # out of file descriptors, most likely: they come back as peers leave
                    log.error("scp.accept_failed", why=error.strerror)
                    self._stopping.wait(0.1)
                continue
            number += 1
            self._open(connection, str(peer[0]), number)

    def _open(self, connection: socket.socket, address: str, number: int) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        association = Association(connection, address, self._acceptor)
        thread = threading.Thread(
            target=self._run, args=(association,), name=f"association-{number}", daemon=True
        )
        with self._lock:
            evicted = self._evict()
            self._connections[association] = thread
        if evicted is not None:
            self._metrics.associations_rejected.labels("too_many_connections").inc()
            evicted.association.cut()
            # cut, it ends at once; waiting for it keeps the number of threads bounded
            evicted.thread.join(_LEAVING_SECONDS)
        try:
            thread.start()
        except RuntimeError as error:
            # no more threads to be had: this peer has to come again, the others stay
            log.error("scp.accept_failed", why=str(error))
            with self._lock:
                self._connections.pop(association, None)
            connection.close()

    def _evict(self) -> _Connection | None:
        """When the lobby is full, the connection that has been in it for longest: silent ones
        cannot keep a speaking one out."""
        if len(self._connections) < self._settings.maximum_associations + LOBBY:
            return None
        waiting = (a for a in self._connections if a not in self._associations)
        oldest = next(waiting, None)
        return None if oldest is None else _Connection(oldest, self._connections[oldest])

    def _run(self, association: Association) -> None:
        try:
            association.run()
        finally:
            with self._lock:
                self._connections.pop(association, None)

    def _take_place(self, association: Association) -> bool:
        with self._lock:
            if len(self._associations) >= self._settings.maximum_associations:
                return False
            self._associations.add(association)
            self._metrics.associations.set(len(self._associations))
            return True

    def _leave_place(self, association: Association) -> None:
        with self._lock:
            self._associations.discard(association)
            self._metrics.associations.set(len(self._associations))


def _join(running: dict[Association, threading.Thread], deadline: float) -> None:
    for thread in running.values():
        thread.join(max(0.0, deadline - time.monotonic()))


def _shut(listener: socket.socket) -> None:
    try:
        listener.shutdown(socket.SHUT_RDWR)
    except OSError as error:
        log.debug("scp.shutdown", why=error.strerror)
