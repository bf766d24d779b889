"""Does the model server stay reachable, and its memory flat, over many reloads under load?

    python -m benchmarks.reload_memory [--reloads 50] [--ballast 20000000] [--askers 4]

Runs `dicomnode model-server` as a process of its own, publishes version after version as
the trainer does, each with a weight of `--ballast` bytes, and withdraws the one before,
while `--askers` threads ask without a pause. Prints the server's resident memory every
fifth reload, and how long requests took. Ends with 1 when a request failed, or when memory
after the fifth reload ever exceeds the fifth's by 10 %.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import grpc
import numpy as np
import psutil

from dicomnode.testing.saved_models import write_tiny_version
from dicomnode.wire import methods, tensors
from dicomnode.wire.generated import serving_pb2 as pb
from trainer import registry

NAME = "covid19"
_START_SECONDS, _RELOAD_SECONDS = 120.0, 60.0


@dataclass
class Answers:
    """What the askers were told, and a condition to wait on."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    newest: int = 0
    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def wait_for(self, version: int, seconds: float) -> None:
        with self.changed:
            if not self.changed.wait_for(lambda: self.newest >= version, seconds):
                raise SystemExit(f"version {version} did not answer within {seconds:g} s")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reloads", type=int, default=50)
    parser.add_argument("--ballast", type=int, default=20_000_000)
    parser.add_argument("--askers", type=int, default=4)
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        return _reload(Path(folder), options.reloads, options.ballast, options.askers)


def _reload(folder: Path, reloads: int, ballast: int, askers: int) -> int:
    exported = write_tiny_version(folder / "exported", 1, ballast_bytes=ballast)
    base = folder / NAME
    registry.publish_copy(exported, base)
    answers, resident = Answers(), []
    with _model_server(base) as (process, port), _asked(port, answers, askers):
        for number in range(1, reloads + 1):
            version = registry.publish_copy(exported, base)
            answers.wait_for(version, _RELOAD_SECONDS)
            registry.withdraw(base, version - 1)
            shutil.rmtree(base / registry.WITHDRAWN)
            resident.append(process.memory_info().rss / 1e6)
            if number % 5 == 0:
                print(f"reload {number:3d}: {resident[-1]:7.1f} MB", flush=True)
    return _verdict(answers, resident)


def _verdict(answers: Answers, resident: list[float]) -> int:
    settled, most = resident[min(4, len(resident) - 1)], max(resident[4:] or resident)
    took = np.array(answers.seconds) * 1000
    print(
        f"{len(took)} requests during {len(resident)} reloads, {len(answers.failures)} failed; "
        f"median {np.median(took):.1f} ms, 99 % {np.percentile(took, 99):.0f} ms, "
        f"longest {took.max():.0f} ms"
    )
    print(f"most after the fifth: {most:.1f} MB, {most / settled - 1:+.1%} of the fifth")
    for failure in sorted(set(answers.failures)):
        print(f"failed: {failure}")
    return 0 if most <= settled * 1.1 and not answers.failures else 1


@contextlib.contextmanager
def _model_server(base: Path) -> Iterator[tuple[psutil.Process, int]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    command = [
        *(sys.executable, "-m", "dicomnode", "model-server", f"--port={port}"),
        *(f"--model_name={NAME}", f"--model_base_path={base}"),
        "--file_system_poll_wait_seconds=0.05",
    ]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        try:
            yield psutil.Process(server.pid), port
        finally:
            server.terminate()


@contextlib.contextmanager
def _asked(port: int, answers: Answers, askers: int) -> Iterator[None]:
    """Threads that ask without a pause, from the first answer of the server on."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        threads = [
            threading.Thread(target=_ask, args=(channel, answers), name=f"asker-{number}")
            for number in range(askers)
        ]
        _first_answer(channel, answers)
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            answers.stop.set()
            for thread in threads:
                thread.join()


def _first_answer(channel: grpc.Channel, answers: Answers) -> None:
    grpc.channel_ready_future(channel).result(timeout=_START_SECONDS)
    end = time.monotonic() + _START_SECONDS
    while answers.newest == 0 and time.monotonic() < end:
        with contextlib.suppress(grpc.RpcError):  # NOT_FOUND until the first version is loaded
            answers.newest = _version(channel)
        time.sleep(0.05)
    answers.wait_for(1, 0)


def _ask(channel: grpc.Channel, answers: Answers) -> None:
    while not answers.stop.is_set():
        started = time.perf_counter()
        try:
            version = _version(channel)
        except grpc.RpcError as error:
            answers.failures.append(f"{error.code()}: {error.details()}")
            continue
        took = time.perf_counter() - started
        with answers.changed:
            answers.seconds.append(took)
            if version > answers.newest:
                answers.newest = version
                answers.changed.notify_all()


def _version(channel: grpc.Channel) -> int:
    request = pb.PredictRequest()
    request.model_spec.name = NAME
    request.model_spec.signature_name = "explain"
    request.inputs["image"].CopyFrom(tensors.to_proto(np.zeros((1, 224, 224, 3), np.uint8)))
    call = channel.unary_unary(
        methods.PREDICT.path,
        request_serializer=pb.PredictRequest.SerializeToString,
        response_deserializer=pb.PredictResponse.FromString,
    )
    return int(call(request, timeout=30).model_spec.version.value)


if __name__ == "__main__":
    sys.exit(main())
