"""One contract for the fake model server and the real one, asked with both sets of stubs.

The official stubs are those of the package tensorflow-serving-api; ours must be
indistinguishable from them on the wire.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from dicomnode.config import ServingSettings
from dicomnode.modelserver.main import ModelServer
from dicomnode.modelserver.options import Options
from dicomnode.serving import ServingClient
from dicomnode.testing.model_servers import FakeModelServer

pytest.importorskip("tensorflow_serving", reason="needs the `model` extra")

import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from dicomnode.testing.saved_models import write_tiny_version

IMAGE = np.full((1, 224, 224, 3), 255, np.uint8)
POSITIVE = 1 / (1 + np.exp(-2.0))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    base = tmp_path_factory.mktemp("models") / "covid19"
    base.mkdir()
    write_tiny_version(base, 1)
    options = Options(model_name="covid19", model_base_path=base, port=0)
    with ModelServer(options) as server:
        manager = server.models.get("covid19")
        assert manager is not None
        assert manager.wait_until_available(1, 60)
        yield server.port


@pytest.fixture(scope="module")
def fake() -> Iterator[int]:
    with FakeModelServer() as server:
        yield server.port


@pytest.fixture(params=["fake", "real"])
def channel(request: pytest.FixtureRequest) -> Iterator[grpc.Channel]:
    port = request.getfixturevalue(request.param)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel


def _predict(channel: grpc.Channel, signature: str, image: Any, **spec: Any) -> Any:
    request = predict_pb2.PredictRequest()
    request.model_spec.name = spec.pop("name", "covid19")
    request.model_spec.signature_name = signature
    if "version" in spec:
        request.model_spec.version.value = spec.pop("version")
    for alias, array in ({"image": image} if not isinstance(image, dict) else image).items():
        request.inputs[alias].CopyFrom(tf.make_tensor_proto(array))
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    return stub.Predict(request, timeout=20)


def _refused(channel: grpc.Channel, *args: Any, **spec: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as error:
        _predict(channel, *args, **spec)
    return error.value.code(), error.value.details()


@pytest.mark.parametrize(
    ("signature", "image", "outputs"),
    [
        ("", IMAGE.astype(np.float32) / 255, {"probabilities": (1, 2)}),
        ("serving_default", IMAGE.astype(np.float32) / 255, {"probabilities": (1, 2)}),
        ("uint8", IMAGE, {"probabilities": (1, 2)}),
        ("explain", IMAGE, {"probabilities": (1, 2), "cam": (1, 7, 7), "embedding": (1, 3)}),
    ],
)
def test_the_three_signatures_answer_the_official_client(
    channel: grpc.Channel, signature: str, image: Any, outputs: dict[str, tuple[int, ...]]
) -> None:
    response = _predict(channel, signature, image)
    assert response.model_spec.version.value == 1
    assert response.model_spec.signature_name == (signature or "serving_default")
    found = {name: tf.make_ndarray(proto) for name, proto in response.outputs.items()}
    assert {name: array.shape for name, array in found.items()} == outputs
    assert found["probabilities"][0, 1] == pytest.approx(POSITIVE, abs=1e-5)


def test_a_batch_is_answered_as_a_batch(channel: grpc.Channel) -> None:
    batch = np.concatenate([IMAGE, np.zeros_like(IMAGE), IMAGE])
    found = tf.make_ndarray(_predict(channel, "uint8", batch).outputs["probabilities"])
    assert found[:, 1] == pytest.approx([POSITIVE, 1 - POSITIVE, POSITIVE], abs=1e-5)


def test_what_is_not_served_is_not_found(channel: grpc.Channel) -> None:
    code, words = _refused(channel, "uint8", IMAGE, name="other")
    assert (code, words) == (
        grpc.StatusCode.NOT_FOUND,
        "Servable not found for request: Latest(other)",
    )
    code, words = _refused(channel, "uint8", IMAGE, version=7)
    assert (code, words) == (
        grpc.StatusCode.NOT_FOUND,
        "Servable not found for request: Specific(covid19, 7)",
    )


def test_what_does_not_fit_is_an_invalid_argument(channel: grpc.Channel) -> None:
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    code, words = _refused(channel, "nope", IMAGE)
    assert code is invalid
    assert 'Serving signature name: "nope" not found in signature def' in words
    code, words = _refused(channel, "serving_default", IMAGE)
    assert code is invalid
    assert "[?,224,224,3], got" in words
    assert _refused(channel, "uint8", IMAGE[:, :100])[0] is invalid
    code, words = _refused(channel, "uint8", {"picture": IMAGE})
    assert code is invalid
    assert "input size does not match signature" in words


def test_status_is_available(channel: grpc.Channel) -> None:
    stub = model_service_pb2_grpc.ModelServiceStub(channel)
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "covid19"
    (status,) = stub.GetModelStatus(request, timeout=20).model_version_status
    assert (status.version, status.state) == (1, status.AVAILABLE)
    for name, version in (("covid19", 9), ("other", None)):
        request.model_spec.name = name
        if version is not None:
            request.model_spec.version.value = version
        with pytest.raises(grpc.RpcError) as error:
            stub.GetModelStatus(request, timeout=20)
        assert error.value.code() is grpc.StatusCode.NOT_FOUND


def test_metadata_opens_with_the_official_message(channel: grpc.Channel) -> None:
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "covid19"
    response = stub.GetModelMetadata(request, timeout=20)
    assert response.model_spec.version.value == 1
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert set(signatures.signature_def) == {"serving_default", "uint8", "explain"}
    explain = signatures.signature_def["explain"]
    assert [dim.size for dim in explain.inputs["image"].tensor_shape.dim] == [-1, 224, 224, 3]
    assert explain.inputs["image"].dtype == tf.uint8.as_datatype_enum
    assert set(explain.outputs) == {"probabilities", "cam", "embedding"}
    assert explain.method_name == "tensorflow/serving/predict"


@pytest.mark.parametrize("server", ["fake", "real"])
def test_our_client_gets_the_same_answer(server: str, request: pytest.FixtureRequest) -> None:
    port = request.getfixturevalue(server)
    client = ServingClient(ServingSettings(targets=[f"127.0.0.1:{port}"]))
    try:
        found = client.predict(IMAGE[0])
    finally:
        client.close()
    assert found.probabilities == pytest.approx((1 - POSITIVE, POSITIVE), abs=1e-5)
    assert found.cam is not None
    np.testing.assert_allclose(found.cam, np.ones((7, 7)), atol=1e-5)
    assert found.embedding is not None
    np.testing.assert_allclose(found.embedding, [1, 1, 1], atol=1e-5)


# ---------------------------------------------------------------- a server of official make


class _OfficialPrediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    """What a server that uses tensorflow-serving-api's stubs sends."""

    def Predict(self, request: Any, context: Any) -> Any:
        image = tf.make_ndarray(request.inputs["image"])
        assert (image.dtype, image.shape) == (np.uint8, (1, 224, 224, 3))
        assert request.model_spec.signature_name == "explain"
        response = predict_pb2.PredictResponse()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = 12
        answers = {"probabilities": [[0.25, 0.75]], "cam": [[[0.5]]], "embedding": [[1.0, 2.0]]}
        for name, values in answers.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(values, dtype=tf.float32))
        return response

    def GetModelMetadata(self, request: Any, context: Any) -> Any:
        signatures = get_model_metadata_pb2.SignatureDefMap()
        signature = signatures.signature_def["explain"]
        signature.inputs["image"].dtype = tf.uint8.as_datatype_enum
        signature.inputs["image"].tensor_shape.CopyFrom(
            tf.TensorShape([None, 224, 224, 3]).as_proto()
        )
        for name in ("probabilities", "cam", "embedding"):
            signature.outputs[name].dtype = tf.float32.as_datatype_enum
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = 12
        response.metadata["signature_def"].Pack(signatures)
        return response


class _OfficialModel(model_service_pb2_grpc.ModelServiceServicer):
    def GetModelStatus(self, request: Any, context: Any) -> Any:
        response = get_model_status_pb2.GetModelStatusResponse()
        response.model_version_status.add(
            version=12, state=get_model_status_pb2.ModelVersionStatus.AVAILABLE
        )
        return response


def test_our_client_understands_a_server_of_official_make() -> None:
    server = grpc.server(ThreadPoolExecutor(4))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        _OfficialPrediction(), server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(_OfficialModel(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    client = ServingClient(ServingSettings(targets=[f"127.0.0.1:{port}"]))
    try:
        assert client.ready()
        found = client.predict(IMAGE[0])
    finally:
        client.close()
        server.stop(None).wait(10)
    assert (found.model_version, found.probabilities) == (12, (0.25, 0.75))
    assert found.embedding is not None
    assert found.embedding.tolist() == [1.0, 2.0]


def test_the_base_path_of_a_tiny_model_holds_its_card(tmp_path: Path) -> None:
    folder = write_tiny_version(tmp_path, 4)
    assert (folder / "assets.extra" / "model_card.json").is_file()
    assert [entry.name for entry in tmp_path.iterdir()] == ["4"]
