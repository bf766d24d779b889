"""The thesis's tables 11 and 12 for the machine at hand: seconds per epoch, seconds per request.

Small samples, a minute or two in all::

    python -m benchmarks.thesis_tables [--network vgg16] [--films 16] [--requests 8]

Table 11: an epoch in which every film goes through the frozen network (the thesis's way), and
what the trainer does instead, features once and then epochs of the head. Measured on `--films`
generated films after a first epoch that also builds the graph, and multiplied up to the thesis's
sets, which is sound because every film costs the same, whether it trains or is looked at.

Table 12: `dicomnode model-server` with that network (random weights: the time does not depend on
them), asked as the thesis's client did (REST, JSON of floats) and as the node does (gRPC, bytes),
one after the other and by two callers at one and at two servers. Two servers on one machine share
its processors: what two boards bring is seen only on two boards; `dicomnode bench` shows that
the balancer itself costs nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from dicomnode import logs
from dicomnode.config import ServingSettings
from dicomnode.serving import ServingClient
from dicomnode.testing.phantoms import chest_phantom
from dicomnode.testing.saved_models import tiny_card
from dicomnode.wire import methods, tensors
from dicomnode.wire.generated import serving_pb2 as pb
from trainer import networks, train
from trainer.features import base as features

SETS = {"25/75": 100, "100/100": 200, "184/184": 368, "184/368": 552}
"""Films of each of the thesis's sets."""
START_SECONDS = 180.0


def main() -> int:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="vgg16")
    parser.add_argument("--films", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--requests", type=int, default=8)
    options = parser.parse_args()
    logs.configure(level="ERROR")
    cores = len(os.sched_getaffinity(0))
    print(f"{options.network}, {cores} processors, batch {options.batch_size}")
    network = networks.build(options.network, weights="random", classes=2, seed=42)
    images = np.stack([_film(seed) for seed in range(options.films)])
    _table_11(network, images, options.batch_size)
    with tempfile.TemporaryDirectory(prefix="dicomnode-thesis-") as folder:
        base = Path(folder) / "covid19"
        _publish(network, base, images[:1])
        with _server(base) as one, _server(base) as two:
            _table_12(one, two, images[0], options.requests)
    return 0


def _film(seed: int) -> np.ndarray:
    pixels = np.asarray(chest_phantom(seed, seed % 2 == 0, 224, 224))
    grey = np.interp(pixels, (pixels.min(), pixels.max()), (0, 255)).astype(np.uint8)
    return np.repeat(grey[..., np.newaxis], 3, axis=2)


def _table_11(network: networks.Network, images: np.ndarray, batch_size: int) -> None:
    labels = np.arange(len(images), dtype=np.int64) % 2
    forward = features.forward_of(network.base, "float32")
    forward(images[: features.BATCH])  # builds the graph
    started = time.perf_counter()
    every = np.arange(len(images))
    stream = features.stream(forward, images, every, batch_size=features.BATCH)
    rows = np.concatenate([some for _, some in stream])
    once = (time.perf_counter() - started) / len(images)
    straight = _epoch(network, images, rows, labels, batch_size, before=network.base)
    head = _epoch(network, rows, rows, labels, batch_size, before=None)
    print(f"\nTable 11: seconds per epoch, from {len(images)} generated films")
    print("set        films  all through it  features once  head alone  25 epochs: thesis  ours")
    for name, count in SETS.items():
        way, ours = straight * count, (once + 25 * head) * count
        print(
            f"{name:<9} {count:6d} {way:15.1f} {once * count:14.1f} {head * count:11.2f} "
            f"{25 * way:18.0f} {ours:5.0f}"
        )


def _epoch(
    network: networks.Network,
    inputs: np.ndarray,
    rows: np.ndarray,
    labels: np.ndarray,
    batch_size: int,
    *,
    before: Any,
) -> float:
    """Seconds of a film in an epoch, without the first one, which builds the graph."""
    ends: list[float] = []
    few = train.Part(inputs=rows[:2], labels=labels[:2])
    train.train(
        network.trainable,
        train.Part(inputs=inputs, labels=labels),
        few,
        epochs=3,
        batch_size=batch_size,
        learning_rate=1e-3,
        seed=42,
        decay="thesis",
        before=before,
        keep="last",
        on_epoch=lambda _: ends.append(time.perf_counter()),
    )
    return (ends[-1] - ends[0]) / (len(ends) - 1) / len(labels)


def _publish(network: networks.Network, base: Path, warmup: np.ndarray) -> None:
    from trainer.export import export

    card = tiny_card("covid19", 1).model_copy(update={"preprocess_profile": network.profile})
    staging = base.with_name("staging")
    export(network, staging, card, warmup)
    base.mkdir()
    staging.rename(base / "1")


@contextlib.contextmanager
def _server(base: Path) -> Iterator[tuple[int, int]]:
    """gRPC and REST port of a model server that is ready."""
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in "ab"]
        port, rest = (listener.getsockname()[1] for listener in listeners)
    command = [sys.executable, "-m", "dicomnode", "model-server", f"--port={port}"]
    command += [f"--rest_api_port={rest}", "--model_name=covid19", f"--model_base_path={base}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        client = ServingClient(_settings([port]))
        end = time.monotonic() + START_SECONDS
        while not client.ready():
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit("the model server did not start; is the `model` extra installed?")
            time.sleep(0.1)
        client.close()
        yield port, rest
    finally:
        process.terminate()
        process.wait(30)


def _settings(ports: list[int]) -> ServingSettings:
    return ServingSettings(
        engine="external",
        targets=[f"127.0.0.1:{port}" for port in ports],
        timeout_seconds=120.0,
        try_timeout_seconds=60.0,
    )


def _table_12(one: tuple[int, int], two: tuple[int, int], image: np.ndarray, requests: int) -> None:
    print(f"\nTable 12: seconds per request, mean of {requests}")
    floats = image.astype(np.float32) / np.float32(255)
    with grpc.insecure_channel(f"127.0.0.1:{one[0]}") as channel:
        rows: dict[str, Callable[[], object]] = {
            "REST, JSON of floats (the thesis's client)": lambda: _rest(one[1], floats),
            "gRPC, float32": lambda: _grpc(channel, "serving_default", floats),
            "gRPC, uint8": lambda: _grpc(channel, "uint8", image),
            "gRPC, uint8, with map and embedding": lambda: _grpc(channel, "explain", image),
        }
        for name, ask in rows.items():
            print(f"{name:<52} {_seconds(ask, requests, callers=1):8.3f}", flush=True)
    for name, ports in (("one server", [one[0]]), ("two behind the balancer", [one[0], two[0]])):
        client = ServingClient(_settings(ports))
        try:
            for _ in range(2 * len(ports)):
                client.predict(image)
            seconds = _seconds(lambda c=client: c.predict(image), requests, callers=2)
        finally:
            client.close()
        print(f"{'the node, two callers, ' + name:<52} {seconds:8.3f}", flush=True)


def _seconds(ask: Callable[[], object], requests: int, *, callers: int) -> float:
    """Wall time over requests, after one that warms up."""
    ask()
    started = time.perf_counter()
    with ThreadPoolExecutor(callers) as threads:
        list(threads.map(lambda _: ask(), range(requests)))
    return (time.perf_counter() - started) / requests


def _rest(port: int, floats: np.ndarray) -> object:
    body = json.dumps({"signature_name": "serving_default", "instances": [floats.tolist()]})
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/models/covid19:predict",
        body.encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)["predictions"]


def _grpc(channel: grpc.Channel, signature: str, image: np.ndarray) -> object:
    request = pb.PredictRequest()
    request.model_spec.name = "covid19"
    request.model_spec.signature_name = signature
    request.inputs["images"].CopyFrom(tensors.to_proto(image[np.newaxis]))
    call = channel.unary_unary(
        methods.PREDICT.path,
        request_serializer=methods.PREDICT.request.SerializeToString,
        response_deserializer=methods.PREDICT.response.FromString,
    )
    return call(request, timeout=120).outputs["probabilities"]


if __name__ == "__main__":
    sys.exit(main())
