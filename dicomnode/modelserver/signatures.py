"""What a version can be asked, and whether a request fits it: pure.

Source: tensorflow/core/protobuf/meta_graph.proto (SignatureDef, TensorInfo).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dicomnode.modelserver.errors import invalid
from dicomnode.wire import tensors
from dicomnode.wire.generated import serving_pb2 as pb

DEFAULT_SIGNATURE = "serving_default"
PREDICT_METHOD = "tensorflow/serving/predict"

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """An input or output: `dtype` is a DataType, `shape` has None for any size, or is None."""

    name: str
    dtype: int
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        return f"{tensors.dtype_name(self.dtype)} {_bracketed(self.shape)}"

    def accepts(self, shape: tuple[int, ...]) -> bool:
        return self.shape is None or (
            len(shape) == len(self.shape)
            and all(
                want is None or want == got for want, got in zip(self.shape, shape, strict=True)
            )
        )

    def to_proto(self) -> Any:
        shape = pb.TensorShapeProto(unknown_rank=self.shape is None)
        for size in self.shape or ():
            shape.dim.add(size=-1 if size is None else size)
        return pb.TensorInfo(name=self.name, dtype=self.dtype, tensor_shape=shape)


@dataclass(frozen=True, kw_only=True)
class Signature:
    """One way to ask a version. Keys are the aliases that clients use."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    method_name: str = PREDICT_METHOD

    @property
    def batchable(self) -> bool:
        """Whether requests can be joined along the first axis of every tensor."""
        return bool(self.inputs) and all(
            spec.shape is not None and len(spec.shape) > 0 and spec.shape[0] is None
            for spec in (*self.inputs.values(), *self.outputs.values())
        )

    def to_proto(self) -> Any:
        proto = pb.SignatureDef(method_name=self.method_name)
        for alias, spec in self.inputs.items():
            proto.inputs[alias].CopyFrom(spec.to_proto())
        for alias, spec in self.outputs.items():
            proto.outputs[alias].CopyFrom(spec.to_proto())
        return proto


class Servable(Protocol):
    """A loaded version."""

    signatures: Mapping[str, Signature]

    def run(self, signature: str, inputs: Arrays) -> Arrays:
        """All outputs of a signature for inputs that fit it. Raises `RequestError`."""

    def close(self) -> None:
        """Let go of its memory; no request runs any more."""


def find(signatures: Mapping[str, Signature], name: str) -> tuple[str, Signature]:
    """The signature that a request names; an empty name is `serving_default`."""
    key = name or DEFAULT_SIGNATURE
    signature = signatures.get(key)
    if signature is None:
        raise invalid(
            f'Serving signature name: "{key}" not found in signature def;'
            f" this version has {', '.join(sorted(signatures)) or 'none'}"
        )
    return key, signature


def check_inputs(name: str, signature: Signature, inputs: Arrays) -> None:
    """Refuse inputs that do not fit, naming what was expected and what came."""
    if inputs.keys() != signature.inputs.keys():
        expected, sent = set(signature.inputs), set(inputs)
        raise invalid(
            f"input size does not match signature: {len(sent)}!={len(expected)}"
            f" len({{{_listed(sent)}}}) != len({{{_listed(expected)}}})."
            f" Sent extra: {{{_listed(sent - expected)}}}."
            f" Missing but required: {{{_listed(expected - sent)}}}."
        )
    for alias, array in inputs.items():
        spec = signature.inputs[alias]
        got = tensors.data_type(array.dtype)
        if got != spec.dtype or not spec.accepts(array.shape):
            raise invalid(
                f'input "{alias}" of signature "{name}" expects {spec}, got'
                f" {tensors.dtype_name(got)} {_bracketed(array.shape)}"
            )


def check_filter(name: str, signature: Signature, output_filter: list[str]) -> list[str]:
    """The outputs that a request wants; all when it names none."""
    for alias in output_filter:
        if alias not in signature.outputs:
            raise invalid(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in"
                f' the set {{{_listed(set(signature.outputs))}}} of signature "{name}".'
            )
    if len(set(output_filter)) != len(output_filter):
        raise invalid("duplicate output tensor alias in output_filter")
    return output_filter or list(signature.outputs)


def zeros(signature: Signature) -> Arrays | None:
    """One item of zeros that fits; None when a size other than the first is unknown."""
    arrays: Arrays = {}
    for alias, spec in signature.inputs.items():
        if spec.shape is None or any(size is None for size in spec.shape[1:]):
            return None
        shape = tuple(1 if size is None else size for size in spec.shape)
        if spec.dtype == pb.DT_STRING:
            return None
        arrays[alias] = np.zeros(shape, dtype=tensors.numpy_dtype(spec.dtype))
    return arrays


def _bracketed(shape: tuple[int | None, ...] | None) -> str:
    if shape is None:
        return "<unknown rank>"
    return "[" + ",".join("?" if size is None else str(size) for size in shape) + "]"


def _listed(names: set[str]) -> str:
    return ",".join(sorted(names))
