"""A SavedModel in memory: the only module here that imports tensorflow.

Signatures are called as the concrete functions that were exported, so nothing is traced
again and a version that is dropped takes its graph and variables with it.
"""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from dicomnode.logs import get_logger
from dicomnode.modelserver.errors import LoadError, RequestError
from dicomnode.modelserver.signatures import Arrays, Signature, TensorSpec, find, zeros
from dicomnode.wire import tensors
from dicomnode.wire.generated import serving_pb2 as pb

log = get_logger(__name__)

WARMUP_PATH = "assets.extra/tf_serving_warmup_requests"
MAXIMUM_WARMUP_REQUESTS = 1000
"""As TensorFlow Serving: more make the version fail to load."""


def import_tensorflow(*, intra_op: int = 0, inter_op: int = 0) -> Any:
    """tensorflow, with its threads set. The threads can be set only before its first use."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf  # noqa: PLC0415 - 3 s and hundreds of MB, only when a model is served

    if intra_op:
        tf.config.threading.set_intra_op_parallelism_threads(intra_op)
    if inter_op:
        tf.config.threading.set_inter_op_parallelism_threads(inter_op)
    return tf


class TensorflowServable:
    """A loaded version. `run` may be called from several threads."""

    def __init__(self, root: Any, signatures: Mapping[str, Signature]) -> None:
        self._root = root
        self._functions = {name: root.signatures[name] for name in signatures}
        self.signatures = signatures

    def run(self, signature: str, inputs: Arrays) -> Arrays:
        tf = import_tensorflow()
        try:
            outputs = self._functions[signature](
                **{name: tf.constant(array) for name, array in inputs.items()}
            )
            return {name: np.asarray(tensor.numpy()) for name, tensor in outputs.items()}
        except tf.errors.OpError as error:
            raise RequestError(_status_code(error.error_code), str(error.message)) from error

    def close(self) -> None:
        self._functions = {}
        self._root = None
        release_memory()


def _status_code(number: int) -> grpc.StatusCode:
    for code in grpc.StatusCode:
        if code.value[0] == number:
            return code
    return grpc.StatusCode.UNKNOWN


def release_memory() -> None:
    """Collect the cycles of a dropped graph and give its pages back to the system.

    Without it resident memory grows with every version: glibc keeps freed arenas, and a
    graph's Python objects refer to each other.
    """
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        log.debug("memory.not_trimmed", reason="the C library has no malloc_trim")


def load(path: Path, *, warm_up: bool = True) -> TensorflowServable:
    """Load, check and warm up a version. Raises `LoadError` with the loader's own words."""
    tf = import_tensorflow()
    try:
        signatures = read_signatures(path)
        servable = TensorflowServable(tf.saved_model.load(str(path)), signatures)
        if warm_up:
            _warm_up(servable, path)
    except LoadError:
        raise
    except RequestError as error:
        raise LoadError(f"warm-up failed: {error.code.name}: {error.message}") from error
    except Exception as error:
        raise LoadError(f"{type(error).__name__}: {error}") from error
    return servable


def read_signatures(path: Path) -> dict[str, Signature]:
    """The signatures of the `serve` meta graph, as its exporter wrote them."""
    from tensorflow.core.protobuf import saved_model_pb2  # noqa: PLC0415 - see import_tensorflow

    file = path / "saved_model.pb"
    try:
        saved = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    except OSError as error:
        raise LoadError(
            f"Could not find SavedModel .pb at supplied export directory path: {path.name}"
            f" ({error.strerror})"
        ) from error
    for graph in saved.meta_graphs:
        if "serve" in graph.meta_info_def.tags:
            return dict(_signatures(graph.signature_def))
    raise LoadError("the SavedModel has no meta graph with the tag 'serve'")


def _signatures(definitions: Any) -> Iterator[tuple[str, Signature]]:
    for name, definition in definitions.items():
        if name.startswith("__saved_model_"):
            continue
        yield (
            name,
            Signature(
                inputs=_specs(definition.inputs),
                outputs=_specs(definition.outputs),
                method_name=definition.method_name,
            ),
        )


def _specs(infos: Any) -> dict[str, TensorSpec]:
    return {
        alias: TensorSpec(
            name=info.name, dtype=info.dtype, shape=tensors.shape_of(info.tensor_shape)
        )
        for alias, info in infos.items()
    }


def _warm_up(servable: TensorflowServable, path: Path) -> None:
    file = path / WARMUP_PATH
    if file.is_file():
        for number, record in enumerate(_records(file)):
            if number >= MAXIMUM_WARMUP_REQUESTS:
                raise LoadError(f"{WARMUP_PATH} holds more than {MAXIMUM_WARMUP_REQUESTS} records")
            _replay(servable, pb.PredictionLog.FromString(record))
        return
    for name, signature in servable.signatures.items():
        inputs = zeros(signature)
        if inputs is not None:
            servable.run(name, inputs)


def _records(file: Path) -> Iterator[bytes]:
    tf = import_tensorflow()
    yield from tf.compat.v1.io.tf_record_iterator(str(file))


def _replay(servable: TensorflowServable, record: Any) -> None:
    if record.WhichOneof("log_type") != "predict_log":
        return
    request = record.predict_log.request
    name, _ = find(servable.signatures, request.model_spec.signature_name)
    servable.run(
        name, {alias: tensors.from_proto(proto) for alias, proto in request.inputs.items()}
    )
