"""The backends that there are now: found, probed, lent out, left out, let go.

Two threads: `serving-resolve` looks the names up again, `serving-probe` asks those that
are left out whether they are well. What they decide is in `balancer`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from dicomnode.config import ServingSettings
from dicomnode.errors import BackendUnavailable
from dicomnode.logs import get_logger
from dicomnode.metrics import Metrics
from dicomnode.serving import balancer
from dicomnode.serving.backend import Backend, serves
from dicomnode.serving.balancer import HealthPolicy, Verdict
from dicomnode.serving.resolver import Address, Lookup, Resolver

log = get_logger(__name__)

_PROBE_SECONDS = 2.0
"""Deadline of a probe."""
_PATIENCE_SECONDS = 3.0
"""How long a request waits while no backend at all is well."""
_READY_SECONDS = 1.0
"""How long an answer of `ready` is believed."""
_JOIN_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A place at a backend."""

    backend: Backend
    in_flight: int
    """Requests there, this one included, when it was taken."""
    taken_at: float


@dataclass(frozen=True, eq=False)
class _Waiting:
    """A request that wants a place, and the backends that have failed it before."""

    avoid: Collection[Backend]


class Pool:
    """Backends of one model. Thread-safe."""

    def __init__(
        self,
        settings: ServingSettings,
        *,
        metrics: Metrics,
        lookup: Lookup,
        clock: Callable[[], float],
        policy: HealthPolicy | None = None,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._policy = policy if policy is not None else HealthPolicy()
        self._backends: list[Backend] = []
        self._queue: list[_Waiting] = []
        """Requests that want a place, in the order of their coming: one per thread."""
        self._changed = threading.Condition()
        self._turn = 0
        self._closed = threading.Event()
        self._wake_prober = threading.Event()
        self._asking = threading.Lock()
        self._ready = False
        self._ready_at = float("-inf")
        self._resolver = Resolver(settings.targets, lookup=lookup)
        self._threads = [threading.Thread(target=self._probe_on, name="serving-probe", daemon=True)]
        if self._resolver.changes:
            resolve = threading.Thread(target=self._resolve_on, name="serving-resolve", daemon=True)
            self._threads.append(resolve)
        else:
            self._adopt(self._resolver.resolve())
        for thread in self._threads:
            thread.start()

    # ---------------------------------------------------------------- requests

    def acquire(self, deadline: float, *, avoid: Collection[Backend]) -> Lease | None:
        """A place at a backend with room, to be given back with `release`.

        Waits its turn while all are full, and a short while when none is well. None when
        the time is up or every one that is well has been tried.
        """
        request = _Waiting(avoid)
        with self._changed:
            self._queue.append(request)
            try:
                return self._await_place(request, deadline)
            finally:
                self._queue.remove(request)
                self._changed.notify_all()

    def _await_place(self, request: _Waiting, deadline: float) -> Lease | None:
        patience = min(deadline, self._clock() + _PATIENCE_SECONDS)
        while True:
            if self._closed.is_set():
                raise BackendUnavailable("the client of the model servers is closed")
            now = self._clock()
            earlier = self._somebody_is_first(request, now)
            backend = None if earlier else self._choose(now, request.avoid)
            if backend is not None:
                self._turn += 1
                self._count_in_flight(backend, +1)
                return Lease(backend=backend, in_flight=backend.in_flight, taken_at=now)
            well = [one for one in self._backends if not one.health.out]
            untried = [one for one in well if one not in request.avoid]
            until = deadline if untried else now if well or request.avoid else patience
            if now >= until:
                return None
            self._changed.wait(until - now)

    def _somebody_is_first(self, request: _Waiting, now: float) -> bool:
        """Whether a request that came earlier can have a place now."""
        earlier = self._queue[: self._queue.index(request)]
        return any(self._choose(now, other.avoid) is not None for other in earlier)

    def _choose(self, now: float, avoid: Collection[Backend]) -> Backend | None:
        loads = [backend.load(now) for backend in self._backends]
        tried = {index for index, backend in enumerate(self._backends) if backend in avoid}
        index = balancer.choose(loads, turn=self._turn, avoid=tried)
        return None if index is None else self._backends[index]

    def release(self, lease: Lease, verdict: Verdict) -> None:
        """Give a place back and remember how its backend did."""
        now = self._clock()
        backend = lease.backend
        with self._changed:
            self._count_in_flight(backend, -1)
            was_out = backend.health.out
            if verdict is Verdict.ACCEPT:
                # a server that is busy with others answers later, but is not slower for it
                backend.note_latency((now - lease.taken_at) / lease.in_flight, now=now)
                backend.health = balancer.after_answer(backend.health)
            elif verdict is Verdict.ELSEWHERE:
                backend.health = balancer.after_failure(
                    backend.health, now=now, policy=self._policy
                )
            if backend.health.out and not was_out:
                self._tell_ejected(backend)
            closing = backend.vanished and not backend.in_flight
            self._changed.notify_all()
        if closing:
            backend.close()

    def _count_in_flight(self, backend: Backend, by: int) -> None:
        backend.in_flight += by
        if not backend.vanished:
            self._metrics.inference_in_flight.labels(backend.name).set(backend.in_flight)

    def _tell_ejected(self, backend: Backend) -> None:
        log.warning(
            "backend.ejected", backend=backend.name, failures_in_a_row=backend.health.failures
        )
        if not backend.vanished:
            self._metrics.backend_ejected.labels(backend.name).set(1)
        self._ready_at = float("-inf")
        self._wake_prober.set()

    def ready(self) -> bool:
        """Whether some backend says AVAILABLE; asks all, at most once a second."""
        with self._asking:
            if self._clock() - self._ready_at < _READY_SECONDS:
                return self._ready
            with self._changed:
                backends = list(self._backends)
            answers = self._probe(backends)
            for backend, well in answers:
                if well:  # a backend that is well now need not wait for its own probe
                    self._note_probe(backend, well)
            self._ready = any(well for _, well in answers)
            self._ready_at = self._clock()
            return self._ready

    def describe(self) -> str:
        """For messages: how many backends there are and how they are."""
        with self._changed:
            total = len(self._backends)
            out = sum(backend.health.out for backend in self._backends)
            busy = sum(backend.in_flight for backend in self._backends)
            waiting = len(self._queue)
        unresolved = "; ".join(f"{name}: {why}" for name, why in self._resolver.errors.items())
        text = f"{total} backends, {out} left out, {busy} requests in flight, {waiting} waiting"
        return f"{text}; {unresolved}" if unresolved else text

    def close(self) -> None:
        """End the threads and close every channel."""
        self._closed.set()
        self._wake_prober.set()
        with self._changed:
            self._changed.notify_all()
            backends, self._backends = self._backends, []
        for backend in backends:
            backend.close()
        for thread in self._threads:
            thread.join(_JOIN_SECONDS)

    # ---------------------------------------------------------------- probes

    def _probe_on(self) -> None:
        while not self._closed.is_set():
            self._wake_prober.clear()
            now = self._clock()
            with self._changed:
                out = [backend for backend in self._backends if backend.health.out]
            due = [backend for backend in out if backend.health.probe_at <= now]
            for backend, well in self._probe(due):
                self._note_probe(backend, well)
            if not due:
                next_at = min((backend.health.probe_at for backend in out), default=None)
                self._wake_prober.wait(None if next_at is None else max(0.0, next_at - now))

    def _probe(self, backends: Sequence[Backend]) -> list[tuple[Backend, bool]]:
        """Ask them all at the same time."""
        try:
            asked = [(backend, backend.probe(timeout=_PROBE_SECONDS)) for backend in backends]
        except ValueError:
            # a channel was closed meanwhile: the backend vanished, or the client ends
            return []
        return [(backend, serves(probe)) for backend, probe in asked]

    def _note_probe(self, backend: Backend, well: bool) -> None:
        with self._changed:
            if not backend.health.out:
                return
            backend.health = balancer.after_probe(
                backend.health, serves=well, now=self._clock(), policy=self._policy
            )
            if not well or backend.vanished:
                return
            backend.questions.clear()
            self._metrics.backend_ejected.labels(backend.name).set(0)
            self._changed.notify_all()
        log.info("backend.available", backend=backend.name)

    # ---------------------------------------------------------------- addresses

    def _resolve_on(self) -> None:
        while not self._closed.is_set():
            self._adopt(self._resolver.resolve())
            self._closed.wait(self._settings.resolve_seconds)

    def _adopt(self, addresses: Sequence[Address]) -> None:
        """Make the backends those at `addresses`: new ones are added, vanished ones drained."""
        with self._changed:
            if self._closed.is_set():
                return
            known = {backend.address: backend for backend in self._backends}
            gone = [backend for backend in self._backends if backend.address not in addresses]
            new = [self._backend(address) for address in addresses if address not in known]
            kept = [backend for backend in self._backends if backend.address in addresses]
            self._backends = kept + new
            for backend in gone:
                backend.vanished = True
                self._forget_metrics(backend)
            idle = [backend for backend in gone if not backend.in_flight]
            self._changed.notify_all()
        for backend in idle:
            backend.close()
        if new or gone:
            log.info(
                "backends.changed",
                added=[backend.name for backend in new],
                removed=[backend.name for backend in gone],
            )
            self._wake_prober.set()

    def _backend(self, address: Address) -> Backend:
        backend = Backend(
            address, model_name=self._settings.model_name, limit=self._settings.maximum_in_flight
        )
        self._metrics.inference_in_flight.labels(backend.name).set(0)
        # one that never comes up is left out too, and somebody should see it
        self._metrics.backend_ejected.labels(backend.name).set(int(backend.health.out))
        return backend

    def _forget_metrics(self, backend: Backend) -> None:
        self._metrics.inference_in_flight.remove(backend.name)
        self._metrics.backend_ejected.remove(backend.name)
