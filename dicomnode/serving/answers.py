"""Requests to and answers from a model server: pure.

Which signature is asked, what is sent for it, and whether what came back can be believed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicomnode.errors import ModelRefused, OtherSizeWanted
from dicomnode.findings import Prediction
from dicomnode.wire import methods, tensors
from dicomnode.wire.generated import serving_pb2 as pb
from dicomnode.wire.tensors import TensorError

CHANNELS = 3
PREFERRED = ("explain", "uint8", "serving_default")
"""The richest answer first (docs: model directory)."""

_SUM_TOLERANCE = 0.02
"""Of probabilities, wide enough for bfloat16."""
_RANGE_TOLERANCE = 1e-4
_MAXIMUM_ELEMENTS = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Question:
    """How a version wants to be asked."""

    signature: str
    input_name: str
    dtype: int
    version: int
    """Of which this was learned."""
    size: tuple[int | None, int | None] = (None, None)
    """Height and width that it takes; None is any."""

    def takes(self, image: NDArray[np.uint8]) -> bool:
        """Whether uint8 [height, width, 3] has the size."""
        return all(
            want in (None, got) for want, got in zip(self.size, image.shape[:2], strict=True)
        )


def question(response: Any, *, backend: str) -> Question:
    """The best signature of a GetModelMetadataResponse. Raises `ModelRefused`."""
    version = int(response.model_spec.version.value)
    name = response.model_spec.name
    try:
        packed = response.metadata[methods.SIGNATURE_DEF_FIELD]
        signatures = methods.unpack_signatures(packed).signature_def
    except ValueError as error:  # protobuf's DecodeError is one
        raise ModelRefused(f"{backend} answered metadata that cannot be read: {error}") from error
    reasons = []
    for signature in PREFERRED:
        if signature not in signatures:
            continue
        inputs = signatures[signature].inputs
        problem = _problem(signatures[signature])
        if problem:
            reasons.append(f"{signature}: {problem}")
            continue
        input_name, info = next(iter(inputs.items()))
        shape = tensors.shape_of(info.tensor_shape)
        return Question(
            signature=signature,
            input_name=input_name,
            dtype=info.dtype,
            version=version,
            size=(None, None) if shape is None else (shape[1], shape[2]),
        )
    raise ModelRefused(
        f"model {name!r} version {version} at {backend} has no signature that takes one image"
        f" [N,h,w,3]: {'; '.join(reasons) or ', '.join(sorted(signatures)) or 'none at all'}"
    )


def _problem(signature: Any) -> str:
    if len(signature.inputs) != 1:
        return f"{len(signature.inputs)} inputs, expected one"
    if "probabilities" not in signature.outputs and len(signature.outputs) != 1:
        return "no output named 'probabilities'"
    info = next(iter(signature.inputs.values()))
    if info.dtype not in (pb.DT_UINT8, pb.DT_FLOAT):
        return f"takes {tensors.dtype_name(info.dtype)}, expected DT_UINT8 or DT_FLOAT"
    shape = tensors.shape_of(info.tensor_shape)
    if shape is None:
        return ""
    if len(shape) != 4 or shape[0] not in (None, 1) or shape[3] not in (None, CHANNELS):
        return f"takes {list(shape)}, expected [N,h,w,3]"
    return ""


def request(
    image: NDArray[np.uint8], asked: Question, *, model_name: str, version: int | None
) -> Any:
    """A PredictRequest for uint8 [height,width,3]. A float signature gets it in 0..1."""
    message = pb.PredictRequest()
    message.model_spec.name = model_name
    message.model_spec.signature_name = asked.signature
    if version is not None:
        message.model_spec.version.value = version
    batch: NDArray[Any] = image[np.newaxis]
    if asked.dtype == pb.DT_FLOAT:
        batch = batch.astype(np.float32) / np.float32(255.0)
    message.inputs[asked.input_name].CopyFrom(tensors.to_proto(batch))
    return message


def check_image(image: NDArray[np.uint8]) -> None:
    """Raises `ModelRefused` for anything but uint8 [height, width, 3]."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != CHANNELS:
        raise ModelRefused(
            f"models take uint8 [height, width, 3], got {image.dtype} {list(image.shape)};"
            " the preprocess profile does not match the model"
        )


def check_size(image: NDArray[np.uint8], asked: Question, *, model_name: str, backend: str) -> None:
    """Raises `OtherSizeWanted` for an image that the version would not take."""
    if not asked.takes(image):
        wanted = ["any" if size is None else size for size in asked.size]
        raise OtherSizeWanted(
            f"model {model_name!r} version {asked.version} at {backend} takes images of {wanted},"
            f" got {list(image.shape[:2])}; the preprocess profile of its card does not match it",
            model_version=asked.version,
        )


def prediction(response: Any, *, model_name: str, backend: str) -> Prediction:
    """What a PredictResponse says about one image. Raises `ModelRefused` for nonsense."""
    version = int(response.model_spec.version.value)
    where = f"model {model_name!r} version {version} at {backend}"
    if version < 1:
        raise ModelRefused(f"{where} did not say which version answered")
    outputs = response.outputs
    key = (
        "probabilities" if "probabilities" in outputs or len(outputs) != 1 else next(iter(outputs))
    )
    probabilities = _output(outputs, key, rank=2, where=where)
    if probabilities is None:
        raise ModelRefused(f"{where} answered no 'probabilities', only {sorted(outputs)}")
    cam = _output(outputs, "cam", rank=3, where=where)
    if cam is not None:
        cam = _within_unit(cam, "cam", where)
    embedding = _output(outputs, "embedding", rank=2, where=where)
    return Prediction(
        model_name=model_name,
        model_version=version,
        backend=backend,
        probabilities=_probabilities(probabilities, where),
        cam=cam,
        embedding=embedding,
    )


def _output(
    outputs: Mapping[str, Any], name: str, *, rank: int, where: str
) -> NDArray[np.float32] | None:
    if name not in outputs:
        return None
    try:
        array = tensors.from_proto(outputs[name], maximum_elements=_MAXIMUM_ELEMENTS)
    except TensorError as error:
        raise ModelRefused(f"{where} answered '{name}' that is no tensor: {error}") from error
    if array.ndim != rank or array.shape[0] != 1 or not array.size or array.dtype.kind != "f":
        raise ModelRefused(
            f"{where} answered '{name}' as {array.dtype} {list(array.shape)},"
            f" expected float {rank} axes for one image"
        )
    if not np.isfinite(array).all():
        raise ModelRefused(f"{where} answered '{name}' with numbers that are not finite")
    return array[0].astype(np.float32)


def _within_unit(array: NDArray[np.float32], name: str, where: str) -> NDArray[np.float32]:
    low, high = float(array.min()), float(array.max())
    if low < -_RANGE_TOLERANCE or high > 1 + _RANGE_TOLERANCE:
        raise ModelRefused(f"{where} answered '{name}' from {low:g} to {high:g}, expected 0 to 1")
    clipped: NDArray[np.float32] = np.clip(array, 0.0, 1.0)
    return clipped


def _probabilities(array: NDArray[np.float32], where: str) -> tuple[float, ...]:
    if array.size < 2:
        raise ModelRefused(f"{where} answered {array.size} probability, expected one per class")
    clipped = _within_unit(array, "probabilities", where)
    total = float(array.sum())
    if abs(total - 1.0) > _SUM_TOLERANCE:
        raise ModelRefused(f"{where} answered probabilities that sum to {total:g}, expected 1")
    return tuple(float(value) for value in clipped)
