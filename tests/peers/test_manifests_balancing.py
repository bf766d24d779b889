"""The examples for foreign gRPC clients balance requests, not connections.

The real HAProxy and nginx run on the shipped files, of which only the addresses are replaced,
before two model servers; TensorFlow Serving's own stub asks on one channel.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from dicomnode.modelserver.main import ModelServer
from dicomnode.modelserver.options import Options
from dicomnode.modelserver.signatures import Signature, TensorSpec
from dicomnode.wire.generated import serving_pb2 as pb
from tests.acceptance.node import free_ports, until
from tests.conftest import ROOT, require_program

pytest.importorskip("tensorflow_serving", reason="needs the `model` extra")

EXAMPLES = ROOT / "deploy" / "examples"
NAME = "covid19"
REQUESTS = 100


class Mean:
    """A version that needs no tensorflow; counts the images that it saw."""

    def __init__(self) -> None:
        shape = (None, 224, 224, 3)
        self.signatures = {
            "uint8": Signature(
                inputs={"images": TensorSpec(name="images:0", dtype=pb.DT_UINT8, shape=shape)},
                outputs={"mean": TensorSpec(name="mean:0", dtype=pb.DT_FLOAT, shape=(None,))},
            )
        }
        self.seen = 0

    def run(self, name: str, inputs: dict[str, Any]) -> dict[str, Any]:
        del name
        self.seen += len(inputs["images"])
        return {"mean": inputs["images"].mean(axis=(1, 2, 3)).astype(np.float32)}

    def close(self) -> None:
        pass


@dataclass
class Board:
    """A model server with the address of a board of its own, and so with the shipped ports."""

    address: str
    server: ModelServer
    version: Mean


@dataclass(frozen=True)
class Ports:
    """What stands for 8500, 8501 and 8404 here."""

    grpc: int
    rest: int
    state: int


@pytest.fixture
def ports() -> Ports:
    return Ports(*free_ports(3))


@pytest.fixture
def boards(tmp_path: Path, ports: Ports) -> Iterator[tuple[Board, Board]]:
    with ExitStack() as stack:
        made = []
        for address in ("127.0.10.11", "127.0.10.12"):
            base = tmp_path / address / NAME
            (base / "1").mkdir(parents=True)
            (base / "1" / "saved_model.pb").touch()
            version = Mean()
            options = Options(
                host=address,
                port=ports.grpc,
                rest_api_port=ports.rest,
                model_name=NAME,
                model_base_path=base,
            )
            server = ModelServer(options, load=lambda _, version=version: version)
            stack.enter_context(server)
            until(lambda server=server: server.models.serving, seconds=30, what="AVAILABLE")
            made.append(Board(address, server, version))
        yield made[0], made[1]


def addressed(name: str, ports: Ports) -> str:
    """The example with the network and the ports of this test, and nothing else, replaced."""
    text = (EXAMPLES / name).read_text().replace("10.0.10.", "127.0.10.")
    for shipped, port in (("8500", ports.grpc), ("8501", ports.rest), ("8404", ports.state)):
        text = re.sub(rf"\b{shipped}\b", str(port), text)
    return text


@contextmanager
def running(command: list[str], log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        process.wait(10)


@contextmanager
def haproxy(ports: Ports, folder: Path) -> Iterator[None]:
    program = require_program("haproxy")
    path = folder / "haproxy.cfg"
    path.write_text(addressed(path.name, ports))
    with running([program, "-db", "-f", str(path)], folder / "log"):
        yield


@contextmanager
def nginx(ports: Ports, folder: Path) -> Iterator[None]:
    program = require_program("nginx")
    path = folder / "nginx.conf"
    path.write_text(addressed(path.name, ports).replace("/tmp/", f"{folder}/"))
    command = [program, "-p", str(folder), "-c", str(path), "-e", "stderr", "-g", "daemon off;"]
    with running(command, folder / "log"):
        yield


BALANCERS = {"haproxy": haproxy, "nginx": nginx}


@pytest.fixture(params=BALANCERS)
def balancer(
    request: pytest.FixtureRequest, boards: tuple[Board, Board], ports: Ports, tmp_path: Path
) -> Iterator[str]:
    """Where its clients find it."""
    del boards  # they are there before it is
    with BALANCERS[request.param](ports, tmp_path):
        yield f"127.0.0.1:{ports.grpc}"


@contextmanager
def stub(target: str) -> Iterator[Callable[[], int]]:
    """TensorFlow Serving's own client on one channel; answers with the version that answered."""
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = NAME, "uint8"
    image = np.zeros((1, 224, 224, 3), np.uint8)
    request.inputs["images"].CopyFrom(tf.make_tensor_proto(image))
    with grpc.insecure_channel(target) as channel:
        service = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        yield (
            lambda: (
                service.Predict(request, timeout=30, wait_for_ready=True).model_spec.version.value
            )
        )


def test_one_channel_reaches_both_boards_evenly(balancer: str, boards: tuple[Board, Board]) -> None:
    with stub(balancer) as ask:
        ask()  # the balancer is up
        for board in boards:
            board.version.seen = 0
        for _ in range(REQUESTS):
            assert ask() == 1
    shares = [board.version.seen / REQUESTS for board in boards]
    assert sum(shares) == 1.0
    assert all(0.4 <= share <= 0.6 for share in shares), shares


def test_requests_at_the_same_time_on_one_channel_are_shared_too(
    balancer: str, boards: tuple[Board, Board]
) -> None:
    with stub(balancer) as ask, ThreadPoolExecutor(8) as pool:
        ask()
        for board in boards:
            board.version.seen = 0
        answers = [pool.submit(ask) for _ in range(REQUESTS)]
        assert [answer.result() for answer in answers] == [1] * REQUESTS
    shares = [board.version.seen / REQUESTS for board in boards]
    assert all(0.4 <= share <= 0.6 for share in shares), shares


def test_no_request_fails_when_a_board_goes(balancer: str, boards: tuple[Board, Board]) -> None:
    first, second = boards
    with stub(balancer) as ask:
        for _ in range(10):
            ask()
        first.server.stop()
        second.version.seen = 0
        for _ in range(20):
            assert ask() == 1
    assert second.version.seen == 20


def test_rest_requests_of_one_connection_are_shared(
    balancer: str, boards: tuple[Board, Board], ports: Ports
) -> None:
    with stub(balancer) as ask:
        ask()  # the balancer is up
    row = {"images": np.zeros((224, 224, 3), np.uint8).tolist()}
    body = json.dumps({"signature_name": "uint8", "instances": [row]})
    for board in boards:
        board.version.seen = 0
    with contextlib.closing(HTTPConnection("127.0.0.1", ports.rest, timeout=30)) as connection:
        for _ in range(10):
            connection.request("POST", f"/v1/models/{NAME}:predict", body)
            answer = connection.getresponse()
            assert (answer.status, json.load(answer)) == (200, {"predictions": [0.0]})
    assert [board.version.seen for board in boards] == [5, 5]


def test_without_a_balancer_one_channel_stays_with_one_board(
    boards: tuple[Board, Board], ports: Ports
) -> None:
    """The control: what a Service does, which chooses once per connection."""
    with stub(f"{boards[0].address}:{ports.grpc}") as ask:
        for _ in range(20):
            ask()
    assert [board.version.seen for board in boards] == [20, 0]
