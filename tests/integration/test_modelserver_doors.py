"""The doors as clients meet them: REST, a third party's client, the command itself."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from dicomnode.modelserver.main import ModelServer, run
from dicomnode.modelserver.options import Options

pytest.importorskip("tensorflow", reason="needs the `model` extra")

from dicomnode.testing.saved_models import write_tiny_version

NAME = "covid19"
LIMIT = 8 * 1024 * 1024


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / NAME
    folder.mkdir()
    write_tiny_version(folder, 1)
    return folder


@pytest.fixture(scope="module")
def server(base: Path) -> Iterator[ModelServer]:
    options = Options(
        model_name=NAME,
        model_base_path=base,
        port=0,
        rest_api_port=0,
        maximum_message_bytes=LIMIT,
    )
    with ModelServer(options) as running:
        manager = running.models.get(NAME)
        assert manager is not None
        assert manager.wait_until_available(1, 60)
        yield running


@pytest.fixture
def rest(server: ModelServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{server.rest_port}", timeout=30) as client:
        yield client


def test_the_thesis_clients_list_of_floats_is_answered(rest: httpx.Client) -> None:
    """224 x 224 x 3 numbers in 0..1 as nested lists, exactly as its client posts them."""
    image = np.random.default_rng(1).random((1, 224, 224, 3)).round(6)
    answer = rest.post(f"/v1/models/{NAME}:predict", json={"instances": image.tolist()})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    assert set(document) == {"predictions"}
    positive = 1 / (1 + np.exp(-4 * (image.mean() - 0.5)))
    assert document["predictions"][0] == pytest.approx([1 - positive, positive], abs=1e-5)


def test_columns_names_signatures_and_versions(rest: httpx.Client) -> None:
    image = np.full((2, 224, 224, 3), 255).tolist()
    body = {"signature_name": "explain", "inputs": {"image": image}}
    answer = rest.post(f"/v1/models/{NAME}/versions/1:predict", json=body)
    assert answer.status_code == 200
    outputs = answer.json()["outputs"]
    assert set(outputs) == {"probabilities", "cam", "embedding"}
    assert np.shape(outputs["cam"]) == (2, 7, 7)
    rows = {"signature_name": "explain", "instances": [{"image": image[0]}]}
    predictions = rest.post(f"/v1/models/{NAME}:predict", json=rows).json()["predictions"]
    assert set(predictions[0]) == {"probabilities", "cam", "embedding"}


@pytest.mark.parametrize(
    ("request_line", "body", "status", "words"),
    [
        (f"POST /v1/models/{NAME}:predict", b"{", 400, "JSON Parse error"),
        (f"POST /v1/models/{NAME}:predict", b"{}", 400, "Missing 'inputs' or 'instances'"),
        (f"POST /v1/models/{NAME}:predict", b'{"instances": [[1]]}', 400, "expects DT_FLOAT"),
        (
            f"POST /v1/models/{NAME}:predict",
            b'{"signature_name": "x", "instances": [1]}',
            400,
            "not found in signature def",
        ),
        ("POST /v1/models/other:predict", b'{"instances": [1]}', 404, "Latest(other)"),
        (
            f"POST /v1/models/{NAME}/versions/9:predict",
            b'{"instances": [1]}',
            404,
            f"Specific({NAME}, 9)",
        ),
        (f"POST /v1/models/{NAME}:classify", b"{}", 501, "not offered"),
        (f"POST /v1/models/{NAME}:predict", b" " * (LIMIT + 1), 413, "larger than"),
        (f"GET /v1/models/{NAME}/versions/9", b"", 404, "Could not find version 9"),
        (f"GET /v1/models/{NAME}/versions/{2**70}", b"", 400, "Failed to convert version"),
        ("GET /v1/models/other", b"", 404, "Could not find any versions of model other"),
        ("GET /v2/models", b"", 400, "Malformed request: GET /v2/models"),
        (f"PUT /v1/models/{NAME}", b"", 400, "Malformed request"),
    ],
)
def test_errors_have_tensorflow_servings_status_and_shape(
    rest: httpx.Client, request_line: str, body: bytes, status: int, words: str
) -> None:
    method, _, path = request_line.partition(" ")
    answer = rest.request(method, path, content=body)
    assert answer.status_code == status
    document = answer.json()
    assert set(document) == {"error"}
    assert words in document["error"]


def test_a_body_without_a_length_is_limited_too(rest: httpx.Client) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(2 * LIMIT // 65536):
            yield b" " * 65536

    try:
        answer = rest.post(f"/v1/models/{NAME}:predict", content=endless())
    except httpx.WriteError:
        return  # the server hung up before everything was sent
    assert answer.status_code == 413


def test_status_and_metadata_are_told(rest: httpx.Client) -> None:
    status = rest.get(f"/v1/models/{NAME}").json()
    assert status == {
        "model_version_status": [
            {
                "version": "1",
                "state": "AVAILABLE",
                "status": {"error_code": "OK", "error_message": ""},
            }
        ]
    }
    metadata = rest.get(f"/v1/models/{NAME}/metadata").json()
    assert metadata["model_spec"] == {"name": NAME, "signature_name": "", "version": "1"}
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    assert signatures["uint8"]["inputs"]["image"]["dtype"] == "DT_UINT8"


def test_the_prometheus_page_counts_requests(rest: httpx.Client) -> None:
    rest.post("/v1/models/invented:predict", json={"instances": [1]})
    rest.post(f"/v1/models/{NAME}:predict", content=b"{")
    page = rest.get("/monitoring/prometheus/metrics").text
    count = r':tensorflow:serving:request_count{model_name="%s",status="%s"} [1-9]'
    assert re.search(count % (NAME, "INVALID_ARGUMENT"), page)
    assert re.search(count % ("unknown", "NOT_FOUND"), page)
    assert "invented" not in page
    assert ":tensorflow:serving:request_latency_bucket" in page


_OVMS = """
import sys
import numpy as np
from ovmsclient import make_grpc_client, make_http_client
image = np.full((1, 224, 224, 3), 0.5, np.float32)
for client in (make_grpc_client(sys.argv[1]), make_http_client(sys.argv[2])):
    status = client.get_model_status("covid19")
    assert status[1]["state"] == "AVAILABLE", status
    metadata = client.get_model_metadata("covid19")
    if "model_spec" in metadata:
        # its HTTP client knows OpenVINO's spelling only and hands on TensorFlow Serving's
        assert metadata["model_spec"]["version"] == "1", metadata
    else:
        assert metadata["model_version"] == 1, metadata
        assert metadata["inputs"]["image"]["shape"] == [-1, 224, 224, 3], metadata
    answer = client.predict({"image": image}, "covid19")
    np.testing.assert_allclose(answer, [[0.5, 0.5]], atol=1e-5)
    try:
        client.predict({"image": image[:, :7]}, "covid19")
    except Exception as error:
        print(type(error).__name__)
"""


def test_a_third_partys_client_is_served(server: ModelServer) -> None:
    """ovmsclient brings protos of its own, so it runs in a process of its own."""
    pytest.importorskip("ovmsclient")
    addresses = [f"127.0.0.1:{server.port}", f"127.0.0.1:{server.rest_port}"]
    command = [sys.executable, "-c", _OVMS, *addresses]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["InvalidInputError", "InvalidInputError"]


# ---------------------------------------------------------------- the command


def _start(base: Path, *more: str) -> tuple[subprocess.Popen[bytes], dict[str, Any]]:
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "dicomnode.modelserver.main", "--port=0"),
            *(f"--model_name={NAME}", f"--model_base_path={base}", *more),
        ],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert process.stderr is not None
    listening: dict[str, Any] = {}
    for line in process.stderr:
        if line.startswith(b"{"):
            event = json.loads(line)
            if event["event"] == "model_server.listening":
                listening = event
            if event["event"] == "model.available":
                return process, listening
    process.wait(10)
    pytest.fail(f"the model server ended with {process.returncode}")


def _end(process: subprocess.Popen[bytes]) -> int:
    try:
        assert process.stderr is not None
        process.stderr.read()
        return process.wait(60)
    finally:
        process.kill()
        process.wait()


def test_the_command_serves_and_ends_with_0_on_sigterm(base: Path) -> None:
    from dicomnode.config import ServingSettings
    from dicomnode.serving import ServingClient

    process, listening = _start(base)
    try:
        client = ServingClient(ServingSettings(targets=[f"127.0.0.1:{listening['port']}"]))
        assert client.predict(np.zeros((224, 224, 3), np.uint8)).model_version == 1
        client.close()
        process.send_signal(signal.SIGTERM)
    finally:
        code = _end(process)
    assert code == 0


def test_the_server_ends_when_its_parent_does(base: Path) -> None:
    process, _ = _start(base, "--parent_pipe")
    assert process.stdin is not None
    process.stdin.close()
    assert _end(process) == 0


def test_a_port_that_is_taken_is_one_line_and_1(
    server: ModelServer, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = Options(model_name=NAME, model_base_path=base, port=server.port)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        assert run(options) == 1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    complaint = capsys.readouterr().err.strip().splitlines()[-1]
    assert f":{server.port}" in complaint
    assert "choose another --port" in complaint
