"""The life of a version: found, loaded, available, drained, unloaded.

One thread looks at the base path and carries out what `versions` decides. Requests hold
a version while they use it; it is closed when the last one has let go.
"""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dicomnode.logs import get_logger
from dicomnode.modelserver.batching import Batcher
from dicomnode.modelserver.errors import LoadError, invalid, not_found
from dicomnode.modelserver.signatures import Servable
from dicomnode.modelserver.versions import Found, Policy, look, next_step, wanted

log = get_logger(__name__)

_KEPT_ENDED = 32
"""Versions that ended and are still reported."""
_DRAIN_SECONDS = 60.0
"""A request that takes longer than this does not hold up the next version."""


class State(enum.IntEnum):
    """Where a version stands (ModelVersionStatus.State). Arrows are the only transitions."""

    START = 10  #: seen on disk -> LOADING
    LOADING = 20  #: -> AVAILABLE, END (with an error)
    AVAILABLE = 30  #: answers requests -> UNLOADING
    UNLOADING = 40  #: answers the requests that it has -> END
    END = 50  #: gone, or failed to load -> LOADING when its files change


@dataclass(frozen=True, kw_only=True)
class VersionStatus:
    version: int
    state: State
    error: str = ""
    """What the loader said; empty when all is well."""


@dataclass(kw_only=True)
class _Loaded:
    version: int
    servable: Servable
    batcher: Batcher
    users: int = 0


@dataclass(kw_only=True)
class _Failure:
    stamp: tuple[int, ...]
    tries: int
    retry_at: float


@dataclass(frozen=True, kw_only=True)
class Held:
    """A version that cannot be unloaded now."""

    version: int
    servable: Servable
    batcher: Batcher


@dataclass(frozen=True, kw_only=True)
class ManagerOptions:
    """How patient and how often. `batching` makes the runner of a loaded version."""

    batching: Callable[[Servable, str], Batcher]
    poll_seconds: float = 1.0
    load_retries: int = 5
    load_retry_seconds: float = 60.0


@dataclass(kw_only=True)
class ModelManager:
    """The versions of one model."""

    name: str
    base_path: Path
    load: Callable[[Path], Servable]
    """Loads the version in a folder; raises `LoadError`."""
    options: ManagerOptions
    policy: Policy = field(default_factory=Policy)
    labels: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._changed = threading.Condition()
        self._polling = threading.Lock()
        self._available: dict[int, _Loaded] = {}
        self._statuses: dict[int, VersionStatus] = {}
        self._failures: dict[int, _Failure] = {}
        self._unreadable = False
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="model-versions", daemon=True)

    # ---------------------------------------------------------------- requests

    @contextmanager
    def hold(self, version: int | None = None, label: str = "") -> Iterator[Held]:
        """The version that a request asks for, kept loaded meanwhile. Raises `RequestError`."""
        loaded = self._enter(version, label)
        try:
            yield Held(version=loaded.version, servable=loaded.servable, batcher=loaded.batcher)
        finally:
            with self._changed:
                loaded.users -= 1
                self._changed.notify_all()

    def _enter(self, version: int | None, label: str) -> _Loaded:
        with self._changed:
            if label:
                if label not in self.labels:
                    raise invalid(f"Unrecognized servable version label: {label}")
                version = self.labels[label]
            if version is None:
                if not self._available:
                    raise not_found(f"Servable not found for request: Latest({self.name})")
                version = max(self._available)
            loaded = self._available.get(version)
            if loaded is None:
                raise not_found(f"Servable not found for request: Specific({self.name}, {version})")
            loaded.users += 1
            return loaded

    def statuses(self, version: int | None = None) -> list[VersionStatus]:
        """All versions, newest first, or one. Raises `RequestError` NOT_FOUND."""
        with self._changed:
            if version is None:
                if not self._statuses:
                    raise not_found(f"Could not find any versions of model {self.name}")
                return [self._statuses[key] for key in sorted(self._statuses, reverse=True)]
            if version not in self._statuses:
                raise not_found(f"Could not find version {version} of model {self.name}")
            return [self._statuses[version]]

    @property
    def serving(self) -> bool:
        """Whether a version is available."""
        with self._changed:
            return bool(self._available)

    # ---------------------------------------------------------------- life cycle

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Unload everything, after its requests."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        with self._polling:
            for version in sorted(self._available):
                self._unload(version)

    def reconfigure(self, *, base_path: Path, policy: Policy, labels: Mapping[str, int]) -> None:
        """Take over another configuration and look at once (HandleReloadConfigRequest)."""
        with self._changed:
            unknown = sorted(
                label
                for label, version in labels.items()
                if version not in self._available and label not in self.labels
            )
            if unknown and base_path == self.base_path and self._available:
                raise invalid(
                    f"labels {', '.join(unknown)} name versions of {self.name} that are not"
                    " available; a label can be given only to a loaded version"
                )
            self.base_path, self.policy, self.labels = base_path, policy, dict(labels)
            self._failures.clear()
        self.poll()

    def poll(self) -> None:
        """Look at the base path once and do what is due. Serialised."""
        with self._polling:
            found = self._look()
            if found is None:
                return
            self._forget(found)
            while not self._stopping.is_set():
                usable = [version for version in found if not self._waits(version, found[version])]
                step = next_step(wanted=wanted(usable, self.policy), available=self._available)
                for version in step.unload:
                    self._unload(version)
                if not step.load:
                    return
                # one at a time: a failure changes what is wanted
                self._load(step.load[0], found[step.load[0]])

    def _watch(self) -> None:
        while not self._stopping.is_set():
            self.poll()
            if self.options.poll_seconds <= 0:
                return
            self._wake.wait(self.options.poll_seconds)

    def _look(self) -> dict[int, Found] | None:
        """None when the folder cannot be read: then what is loaded stays as it is."""
        try:
            found = look(self.base_path)
        except OSError as error:
            if not self._unreadable:
                log.warning(
                    "model.base_path_unreadable",
                    model=self.name,
                    path=str(self.base_path),
                    error=error.strerror,
                )
            self._unreadable = True
            return None
        self._unreadable = False
        return found

    def _forget(self, found: Mapping[int, Found]) -> None:
        """A failed version whose files are gone or replaced starts anew."""
        for version, failure in list(self._failures.items()):
            if version not in found or found[version].stamp != failure.stamp:
                del self._failures[version]

    def _waits(self, version: int, found: Found) -> bool:
        """Whether a version failed and is not to be tried now."""
        failure = self._failures.get(version)
        if failure is None or version in self._available or failure.stamp != found.stamp:
            return False
        return failure.tries > self.options.load_retries or time.monotonic() < failure.retry_at

    def _load(self, version: int, found: Found) -> None:
        self._report(version, State.START)
        self._report(version, State.LOADING)
        started = time.monotonic()
        try:
            servable = self.load(found.path)
        except LoadError as error:
            self._fail(version, found, str(error))
            return
        batcher = self.options.batching(servable, f"{self.name}-{version}")
        with self._changed:
            self._failures.pop(version, None)
            self._available[version] = _Loaded(version=version, servable=servable, batcher=batcher)
            self._report(version, State.AVAILABLE)
        log.info(
            "model.available",
            model=self.name,
            version=version,
            duration_seconds=round(time.monotonic() - started, 3),
        )

    def _fail(self, version: int, found: Found, error: str) -> None:
        before = self._failures.get(version)
        tries = before.tries + 1 if before is not None else 1
        self._failures[version] = _Failure(
            stamp=found.stamp,
            tries=tries,
            retry_at=time.monotonic() + self.options.load_retry_seconds,
        )
        self._report(version, State.END, error)
        log.error("model.load_failed", model=self.name, version=version, tries=tries, error=error)

    def _unload(self, version: int) -> None:
        with self._changed:
            loaded = self._available.pop(version)
            self._report(version, State.UNLOADING)
            drained = self._changed.wait_for(lambda: loaded.users == 0, _DRAIN_SECONDS)
        if not drained:
            log.warning("model.not_drained", model=self.name, version=version, users=loaded.users)
        loaded.batcher.close()
        loaded.servable.close()
        self._report(version, State.END)
        log.info("model.unloaded", model=self.name, version=version)

    def _report(self, version: int, state: State, error: str = "") -> None:
        with self._changed:
            self._statuses[version] = VersionStatus(version=version, state=state, error=error)
            ended = [key for key in self._statuses if self._statuses[key].state is State.END]
            for key in sorted(ended)[:-_KEPT_ENDED]:
                del self._statuses[key]
            self._changed.notify_all()

    def wait_until_available(self, version: int | None, timeout: float) -> bool:
        """Block until a version (or any) answers requests; for start-up and tests."""
        with self._changed:
            return self._changed.wait_for(
                lambda: bool(self._available) if version is None else version in self._available,
                timeout,
            )
