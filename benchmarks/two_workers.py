"""Two workers with a core each against one worker with one core, VGG16.

Runs `trainer fit` twice on the same films, pinned with taskset: as one process on one core, and
as two (`--strategy direct`) on a core each. Prints the time of features and head, of the whole
command, and what each came to::

    python -m benchmarks.two_workers [--data DIR] [--batch-size 16] [--network vgg16]
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from dicomnode.testing.phantoms import write_training_folder

SHARED = Path(os.environ.get("DICOMNODE_TEST_DATA", "../shared/data")) / "cxr"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="[default: the shared films, else phantoms]")
    parser.add_argument("--batch-size", type=int, default=16, help="over all workers")
    parser.add_argument("--network", default="vgg16")
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise SystemExit("this needs two cores")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        films = options.data or (SHARED if SHARED.is_dir() else _phantoms(folder / "films"))
        common = ["--data", str(films), "--network", options.network]
        common += ["--batch-size", str(options.batch_size)]
        one = _run(common, folder / "one", cores[:1])
        two = _run(common, folder / "two", cores)
    names = ("features", "head", "features and head", "whole command")
    for name, alone, both in zip(names, one[0], two[0], strict=True):
        print(
            f"{name:<18} one {alone[0]:6.1f} s  two {both[0]:6.1f} s  "
            f"{alone[0] / both[0]:.2f} times faster; processor: one {alone[1]:.1f} s, "
            f"the busier of two {both[1]:.1f} s, {alone[1] / both[1]:.2f} times less"
        )
    print("weights equal on both workers after every epoch (else the run had ended)")
    print("one worker came to ", one[1])
    print("two workers came to", two[1])


Phase = tuple[float, float]
"""Seconds on the wall, and of the processor in the busier worker: on a machine that others
use too, the second tells more."""


def _run(
    common: list[str], folder: Path, cores: list[int]
) -> tuple[tuple[Phase, ...], dict[str, Any]]:
    """The phases, and the figures."""
    hosts = [f"127.0.0.1:{port}" for port in _free_ports(len(cores))]
    started = time.perf_counter()
    workers = [_worker(common, folder, core, hosts, index) for index, core in enumerate(cores)]
    spent = [psutil.Process(worker.pid) for worker in workers]
    told: dict[str, tuple[Clock, dict[str, Any]]] = {}
    assert workers[0].stdout is not None
    for line in workers[0].stdout:
        event = json.loads(line)
        told[event.pop("event")] = Clock.now(spent), event
    last = told["published"][0]
    if any(worker.wait() for worker in workers):
        raise SystemExit("a worker failed")
    begun = Clock(wall=started, processors=[0.0] * len(cores))
    # the network is built before, which costs the same with any number
    built, computed, trained = (told[name][0] for name in ("network", "features", "epoch"))
    pairs = ((built, computed), (computed, trained), (built, trained), (begun, last))
    return tuple(later.since(earlier) for earlier, later in pairs), told["evaluated"][1]


@dataclass(frozen=True, kw_only=True)
class Clock:
    """A moment: on the wall, and what each worker's processor has done until then."""

    wall: float
    processors: list[float]

    @classmethod
    def now(cls, workers: list[psutil.Process]) -> Clock:
        times = [worker.cpu_times() for worker in workers]
        return cls(wall=time.perf_counter(), processors=[t.user + t.system for t in times])

    def since(self, earlier: Clock) -> Phase:
        pairs = zip(self.processors, earlier.processors, strict=True)
        return self.wall - earlier.wall, max(late - early for late, early in pairs)


def _worker(
    common: list[str], folder: Path, core: int, hosts: list[str], index: int
) -> subprocess.Popen[str]:
    cluster = {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}}
    command = ["taskset", "-c", str(core), sys.executable, "-m", "trainer", "fit", *common]
    command += ["--out", str(folder / "m"), "--progress", "json", "--strategy"]
    command.append("direct" if len(hosts) > 1 else "local")
    worker = subprocess.Popen(
        command,
        env=os.environ | {"TF_CONFIG": json.dumps(cluster)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    if index:  # says nothing but has to be read
        threading.Thread(target=worker.stdout.read, daemon=True).start()  # type: ignore[union-attr]
    return worker


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _phantoms(folder: Path) -> Path:
    write_training_folder(folder, 184, 5, 256)
    return folder


if __name__ == "__main__":
    main()
