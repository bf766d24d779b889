"""Who trains together: the workers of one run, and what they tell each other.

`ClusterSpec` says who they are, from the environment; `join` connects them with
MultiWorkerMirroredStrategy (collectives over gRPC); `Cluster` is what the training loop
works with, and on one machine it is the same with one worker.

A worker that dies is noticed: its connection is reset, or its heartbeat to the coordination
service stops (ten seconds). Whoever waits then gets `PeerLost`. A peer that lives and does
nothing is bounded by `patience`: after that many seconds in one exchange this process ends
itself, because nothing can interrupt a collective.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from trainer.errors import PeerLost, TrainerError, UsageError

Strategy = Literal["local", "direct", "kubernetes"]
STRATEGIES: Final = ("local", "direct", "kubernetes")

PORT: Final = 8470
"""Of every worker in a Kubernetes Job."""
_PROBE_SECONDS: Final = 2.0
_PROBES: Final = 3


@dataclass(frozen=True, kw_only=True)
class ClusterSpec:
    """The workers in their order, and which of them this process is."""

    hosts: tuple[str, ...] = ()
    """`host:port` of every worker; empty when this process trains alone."""
    index: int = 0

    @property
    def workers(self) -> int:
        return max(1, len(self.hosts))

    @property
    def is_chief(self) -> bool:
        """The one that writes."""
        return self.index == 0

    @classmethod
    def from_environment(cls, strategy: str, environ: Mapping[str, str]) -> ClusterSpec:
        """`local`: alone. `direct`: TF_CONFIG. `kubernetes`: an Indexed Job's variables.

        The host names of an Indexed Job follow from its name and the pod's index, and its
        pods keep them when they start again; no API is asked. Raises `UsageError`.
        """
        if strategy == "local":
            return cls()
        if strategy == "direct":
            return _from_tf_config(environ)
        if strategy == "kubernetes":
            return _from_indexed_job(environ)
        raise UsageError(f"--strategy must be one of {', '.join(STRATEGIES)}, got {strategy!r}")


def _from_tf_config(environ: Mapping[str, str]) -> ClusterSpec:
    example = (
        'expected {"cluster": {"worker": ["host:port", ...]}, '
        '"task": {"type": "worker", "index": 0}}'
    )
    text = environ.get("TF_CONFIG", "")
    if not text:
        raise UsageError(f"--strategy direct needs the variable TF_CONFIG; {example}")
    try:
        told = json.loads(text)
        jobs, task = dict(told["cluster"]), dict(told["task"])
        hosts = tuple(str(host) for name in ("chief", "worker") for host in jobs.pop(name, ()))
        index = int(task["index"]) + (
            len(told["cluster"].get("chief", ())) * (task["type"] != "chief")
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"TF_CONFIG cannot be read; {example}") from error
    if jobs or task["type"] not in ("chief", "worker"):
        found = ", ".join(sorted({*jobs, str(task["type"])} - {"chief", "worker"}))
        raise UsageError(f"TF_CONFIG names the job {found}; every task must be chief or worker")
    return _checked(hosts, index, "TF_CONFIG")


def _from_indexed_job(environ: Mapping[str, str]) -> ClusterSpec:
    needed = (
        "JOB_COMPLETION_INDEX",
        "DICOMNODE_JOB_NAME",
        "DICOMNODE_SERVICE",
        "DICOMNODE_WORKERS",
    )
    missing = [name for name in needed if not environ.get(name)]
    if missing:
        raise UsageError(
            f"--strategy kubernetes needs the variable {', '.join(missing)}; "
            "the manifest of `trainer submit` sets them"
        )
    index, job, service, workers = (environ[name] for name in needed)
    if not (index.isdecimal() and workers.isdecimal() and int(workers)):
        raise UsageError(
            "JOB_COMPLETION_INDEX and DICOMNODE_WORKERS must be whole numbers, "
            f"got {index!r} and {workers!r}"
        )
    namespace = environ.get("DICOMNODE_NAMESPACE", "")
    domain = f".{namespace}.svc.cluster.local" if namespace else ""
    hosts = tuple(f"{job}-{n}.{service}{domain}:{PORT}" for n in range(int(workers)))
    return _checked(hosts, int(index), "DICOMNODE_WORKERS")


def _checked(hosts: tuple[str, ...], index: int, source: str) -> ClusterSpec:
    wrong = [host for host in hosts if not _address(host)]
    if wrong:
        raise UsageError(f"{source} names the worker {wrong[0]!r}; expected host:port")
    if len(set(hosts)) != len(hosts):
        raise UsageError(f"{source} names a worker twice: {', '.join(hosts)}")
    if not 0 <= index < len(hosts):
        raise UsageError(f"{source} names {len(hosts)} workers; there is no worker {index}")
    return ClusterSpec(hosts=hosts, index=index)


def _address(host: str) -> tuple[str, int] | None:
    name, _, port = host.rpartition(":")
    return (name.strip("[]"), int(port)) if name and port.isdecimal() else None


@dataclass(kw_only=True)
class Cluster:
    """The workers, connected. Every method but `check` is called by all of them at once."""

    spec: ClusterSpec
    strategy: Any
    """A tf.distribute.Strategy with one replica per worker; models are built in its scope."""
    patience: float
    _sums: dict[Any, Any] = field(default_factory=dict)
    _deadline: tuple[float, str] | None = None

    @property
    def workers(self) -> int:
        return self.spec.workers

    @property
    def index(self) -> int:
        return self.spec.index

    @property
    def is_chief(self) -> bool:
        return self.spec.is_chief

    def scope(self) -> Any:
        return self.strategy.scope()

    def sum(self, array: NDArray[Any]) -> NDArray[Any]:
        """The elementwise sum over the workers, the same on each. Shape and dtype must be
        the same on all; float64 and int64 are exact enough to gather rows with."""
        if self.workers == 1:
            return array
        import tensorflow as tf  # noqa: PLC0415

        if array.dtype not in self._sums:

            @tf.function(input_signature=[tf.TensorSpec([None], array.dtype)])
            def total(value: Any) -> Any:
                own = self.strategy.run(tf.identity, args=(value,))
                return self.strategy.reduce(tf.distribute.ReduceOp.SUM, own, axis=None)

            self._sums[array.dtype] = total
        with self.exchange("a sum"):
            summed = self._sums[array.dtype](tf.constant(array.ravel())).numpy()
        return np.asarray(summed, dtype=array.dtype).reshape(array.shape)

    def gather(self, own: NDArray[np.float64], start: int, rows: int) -> NDArray[np.float64]:
        """`own` are rows `start`... of a matrix of `rows` rows; the whole of it, everywhere."""
        whole = np.zeros((rows, *own.shape[1:]), dtype=np.float64)
        whole[start : start + len(own)] = own
        return self.sum(whole)

    def same(self, digest: bytes, what: str) -> None:
        """Raises `TrainerError` unless every worker came with the same 32 bytes."""
        rows = np.zeros((self.workers, 32), dtype=np.int64)
        rows[self.index] = np.frombuffer(digest, dtype=np.uint8)
        rows = self.sum(rows)
        others = [str(n) for n in range(self.workers) if not np.array_equal(rows[n], rows[0])]
        if others:
            raise TrainerError(
                f"worker {', '.join(others)} has other {what} than worker 0; expected the same "
                "on all: the same data, configuration and library versions"
            )

    @contextmanager
    def exchange(self, what: str) -> Iterator[None]:
        """Within it the peers are waited for; a lost one becomes `PeerLost`."""
        if self.workers == 1:
            yield
            return
        import tensorflow as tf  # noqa: PLC0415

        errors = tf.errors
        self._deadline = (time.monotonic() + self.patience, what)
        try:
            yield
        except errors.OpError as error:
            gone = (errors.UnavailableError, errors.DeadlineExceededError, errors.AbortedError)
            if isinstance(error, gone) or "ollective" in str(error):
                raise PeerLost(self._lost(what)) from error
            raise
        finally:
            self._deadline = None

    def check(self) -> None:
        """Raises `PeerLost` when a peer no longer listens (asked three times)."""
        for number, host in enumerate(self.spec.hosts):
            if number == self.index:
                continue
            address = _address(host)
            assert address is not None
            if not any(_listens(address, pause=n) for n in range(_PROBES)):
                raise PeerLost(f"worker {number} ({host}) no longer answers; {_AGAIN}")

    def _lost(self, what: str) -> str:
        try:
            self.check()
        except PeerLost as lost:
            return str(lost)
        return f"another worker was lost during {what}; {_AGAIN}"

    def _overdue(self) -> str | None:
        deadline = self._deadline
        if deadline is None or time.monotonic() < deadline[0]:
            return None
        return f"waited {self.patience:.0f} s for another worker during {deadline[1]}; {_AGAIN}"


_AGAIN: Final = "start all workers again, they continue from the last checkpoint"


def _listens(address: tuple[str, int], *, pause: int) -> bool:
    if pause:
        time.sleep(_PROBE_SECONDS / 2)
    try:
        with socket.create_connection(address, timeout=_PROBE_SECONDS):
            return True
    except OSError:
        return False


@contextmanager
def join(spec: ClusterSpec, *, patience: float = 1800.0) -> Iterator[Cluster]:
    """Connect with the peers; at the end wait for them, so that all end well or none does.

    Must come before anything else of tensorflow. Raises `PeerLost`.
    """
    import tensorflow as tf  # noqa: PLC0415

    if spec.workers == 1:
        yield Cluster(spec=spec, strategy=tf.distribute.get_strategy(), patience=patience)
        return
    cluster = Cluster(spec=spec, strategy=None, patience=patience)
    done = threading.Event()
    watch = threading.Thread(target=_watch, args=(cluster, done), name="peer-watch", daemon=True)
    watch.start()
    try:
        with cluster.exchange("the start"):
            cluster.strategy = _strategy(tf, spec)
        if threading.current_thread() is threading.main_thread():
            # tensorflow has put a handler of its own there, which ignores the signal
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        yield cluster
        cluster.sum(np.ones(1, dtype=np.int64))
    finally:
        done.set()


def _strategy(tf: Any, spec: ClusterSpec) -> Any:
    communication = tf.distribute.experimental.CommunicationImplementation.RING
    options = tf.distribute.experimental.CommunicationOptions(implementation=communication)
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(spec.hosts)}),
        task_type="worker",
        task_id=spec.index,
        rpc_layer="grpc",
    )
    strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver, options)
    if strategy.num_replicas_in_sync != spec.workers:
        raise UsageError(
            f"{spec.workers} workers have {strategy.num_replicas_in_sync} devices; a worker "
            "trains on one: give each its own with CUDA_VISIBLE_DEVICES"
        )
    return strategy


def _watch(cluster: Cluster, done: threading.Event) -> None:
    """Ends the process when it waits for too long: a collective cannot be interrupted."""
    while not done.wait(1.0):
        overdue = cluster._overdue()
        if overdue:
            sys.stderr.write(f"{PeerLost.code}: {overdue}\n")
            sys.stderr.flush()
            os._exit(PeerLost.exit_code)
