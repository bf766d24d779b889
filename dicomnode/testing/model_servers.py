"""A model server without a model: TensorFlow Serving's calls, answered in process.

Obeys the same contract test as the real one. Answers with the arithmetic of
`testing.saved_models`, takes a set time for each request, one after the other as one
processor would, and fails on demand.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from dicomnode.wire import methods, tensors
from dicomnode.wire.generated import serving_pb2 as pb

SIGNATURES = ("serving_default", "uint8", "explain")
CAM_SIZE = 7

_OUTPUTS: dict[str, dict[str, tuple[int, ...]]] = {
    "serving_default": {"probabilities": (-1, 2)},
    "uint8": {"probabilities": (-1, 2)},
    "explain": {
        "probabilities": (-1, 2),
        "cam": (-1, CAM_SIZE, CAM_SIZE),
        "embedding": (-1, 3),
    },
}

Spoil = Callable[[Any], Any]
"""Changes a PredictResponse before it is sent."""


class FakeModelServer:
    """A gRPC server on a free loopback port; a context manager.

    `version`, `side`, `signatures`, `service_seconds`, `state`, `failures` and `spoil` may
    be changed while it runs.
    """

    def __init__(
        self,
        *,
        model_name: str = "covid19",
        version: int = 1,
        service_seconds: float = 0.0,
        signatures: Sequence[str] = SIGNATURES,
        slope: float = 4.0,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.model_name = model_name
        self.version = version
        self.side = 224
        """Height and width of the images that it takes."""
        self.service_seconds = service_seconds
        self.signatures = tuple(signatures)
        self.slope = slope
        self.state: int = pb.ModelVersionStatus.AVAILABLE
        """Of the version; requests are answered NOT_FOUND unless AVAILABLE."""
        self.failures: list[grpc.StatusCode] = []
        """Statuses that the next Predict calls end with, first one first."""
        self.always: grpc.StatusCode | None = None
        """The status that every Predict call ends with."""
        self.spoil: Spoil | None = None
        self.answered = 0
        """Predict calls that ended with OK."""
        self.most_at_once = 0
        """Predict calls that were here at the same time."""
        self.arrived = threading.Event()
        """Set when the first Predict call is here."""
        self.gate = threading.Event()
        """Predict calls wait for it; open at first."""
        self.gate.set()
        self._here = 0
        self._lock = threading.Lock()
        self._processor = threading.Lock()
        self._server = grpc.server(
            ThreadPoolExecutor(32, thread_name_prefix="fake-model-server"),
            options=[("grpc.so_reuseport", 0)],
        )
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    methods.PREDICTION_SERVICE,
                    {
                        "Predict": _handler(methods.PREDICT, self._predict),
                        "GetModelMetadata": _handler(methods.GET_MODEL_METADATA, self._metadata),
                    },
                ),
                grpc.method_handlers_generic_handler(
                    methods.MODEL_SERVICE,
                    {"GetModelStatus": _handler(methods.GET_MODEL_STATUS, self._status)},
                ),
            )
        )
        self.host = host
        self.port: int = self._server.add_insecure_port(f"{host}:{port}")
        self.target = f"{host}:{self.port}"

    def start(self) -> FakeModelServer:
        self._server.start()
        return self

    def stop(self, grace_seconds: float | None = None) -> None:
        """End at once, as a killed process does, or after a grace."""
        self.gate.set()
        self._server.stop(grace_seconds).wait(10.0)

    def __enter__(self) -> FakeModelServer:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def _shape(self) -> tuple[int, int, int, int]:
        return -1, self.side, self.side, 3

    # ---------------------------------------------------------------- calls

    def _predict(self, request: Any, context: Any) -> Any:
        with self._lock:
            self._here += 1
            self.most_at_once = max(self.most_at_once, self._here)
            failure = self.failures.pop(0) if self.failures else self.always
        try:
            self.arrived.set()
            self.gate.wait(30.0)
            if failure is not None:
                context.abort(failure, f"told to fail with {failure.name}")
            self._check_served(request.model_spec, context)
            if self.service_seconds:
                with self._processor:
                    time.sleep(self.service_seconds)
            response = self._answer(request, context)
            with self._lock:
                self.answered += 1
            return response if self.spoil is None else self.spoil(response)
        finally:
            with self._lock:
                self._here -= 1

    def _answer(self, request: Any, context: Any) -> Any:
        name = request.model_spec.signature_name or "serving_default"
        if name not in self.signatures:
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f'Serving signature name: "{name}" not found in signature def',
            )
        if set(request.inputs) != {"image"}:
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, "input size does not match signature: image"
            )
        image = tensors.from_proto(request.inputs["image"])
        expected = np.dtype(np.float32 if name == "serving_default" else np.uint8)
        if image.dtype != expected or image.shape[1:] != self._shape[1:]:
            context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                f'input "image" of signature "{name}" expects {expected} '
                f"[?,{self.side},{self.side},3], got {image.dtype} {list(image.shape)}",
            )
        response = pb.PredictResponse()
        response.model_spec.name = self.model_name
        response.model_spec.version.value = self.version
        response.model_spec.signature_name = name
        for alias, array in _outputs(image, self.slope).items():
            if alias in _OUTPUTS[name]:
                response.outputs[alias].CopyFrom(tensors.to_proto(array))
        return response

    def _metadata(self, request: Any, context: Any) -> Any:
        self._check_served(request.model_spec, context)
        signatures = pb.SignatureDefMap()
        for name in self.signatures:
            signature = signatures.signature_def[name]
            signature.method_name = "tensorflow/serving/predict"
            dtype = pb.DT_FLOAT if name == "serving_default" else pb.DT_UINT8
            signature.inputs["image"].CopyFrom(_info(dtype, self._shape))
            for alias, shape in _OUTPUTS[name].items():
                signature.outputs[alias].CopyFrom(_info(pb.DT_FLOAT, shape))
        response = pb.GetModelMetadataResponse()
        response.model_spec.name = self.model_name
        response.model_spec.version.value = self.version
        packed = methods.pack_signatures(signatures)
        response.metadata[methods.SIGNATURE_DEF_FIELD].CopyFrom(packed)
        return response

    def _status(self, request: Any, context: Any) -> Any:
        spec = request.model_spec
        if spec.name != self.model_name:
            context.abort(
                grpc.StatusCode.NOT_FOUND, f"Could not find any versions of model {spec.name}"
            )
        if spec.HasField("version") and spec.version.value != self.version:
            context.abort(
                grpc.StatusCode.NOT_FOUND,
                f"Could not find version {spec.version.value} of model {spec.name}",
            )
        response = pb.GetModelStatusResponse()
        response.model_version_status.add(version=self.version, state=self.state, status={})
        return response

    def _check_served(self, spec: Any, context: Any) -> None:
        named = spec.name == self.model_name
        wanted = not spec.HasField("version") or spec.version.value == self.version
        if named and wanted and self.state == pb.ModelVersionStatus.AVAILABLE:
            return
        asked = (
            f"Specific({spec.name}, {spec.version.value})"
            if spec.HasField("version")
            else f"Latest({spec.name})"
        )
        context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {asked}")


def _handler(method: methods.Method, behaviour: Any) -> Any:
    return grpc.unary_unary_rpc_method_handler(
        behaviour,
        request_deserializer=method.request.FromString,
        response_serializer=method.response.SerializeToString,
    )


def _info(dtype: int, shape: tuple[int, ...]) -> Any:
    dims = [pb.TensorShapeProto.Dim(size=size) for size in shape]
    return pb.TensorInfo(dtype=dtype, tensor_shape=pb.TensorShapeProto(dim=dims))


def _outputs(image: NDArray[Any], slope: float) -> dict[str, NDArray[np.float32]]:
    unit = image.astype(np.float32) / (255.0 if image.dtype == np.uint8 else 1.0)
    mean = unit.mean(axis=(1, 2, 3))
    positive = 1.0 / (1.0 + np.exp(-slope * (mean - 0.5)))
    side = unit.shape[1] // CAM_SIZE
    whole = unit[:, : side * CAM_SIZE, : side * CAM_SIZE]
    cells = whole.reshape(-1, CAM_SIZE, side, CAM_SIZE, side, 3)
    low, high = unit.min(axis=(1, 2, 3)), unit.max(axis=(1, 2, 3))
    return {
        "probabilities": np.stack([1.0 - positive, positive], axis=1).astype(np.float32),
        "cam": cells.mean(axis=(2, 4, 5)).astype(np.float32),
        "embedding": np.stack([mean, low, high], axis=1).astype(np.float32),
    }
