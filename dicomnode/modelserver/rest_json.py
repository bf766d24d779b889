"""JSON bodies of the REST API <-> arrays: pure.

Source: tensorflow_serving/util/json_tensor.cc. A request is in row format ("instances":
one entry per item) or in columnar format ("inputs": one value per tensor); the answer
comes in the same format. NaN and Infinity are read and written as those bare words, as
TensorFlow Serving does, although JSON has no such numbers.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from dicomnode.modelserver.errors import invalid
from dicomnode.modelserver.signatures import Arrays, Signature, TensorSpec
from dicomnode.wire import tensors
from dicomnode.wire.generated import serving_pb2 as pb


@dataclass(frozen=True, kw_only=True)
class JsonRequest:
    """A body whose outer form is right; its values wait for the signature."""

    signature_name: str
    row_format: bool
    values: Any


def parse(body: bytes) -> JsonRequest:
    """Raises `RequestError` INVALID_ARGUMENT."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise invalid(f"JSON Parse error: {error}") from error
    if not isinstance(document, dict):
        raise invalid("JSON Value: the body is not an object; expected instances or inputs")
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid("'signature_name' key must be a string value.")
    if "instances" in document and "inputs" in document:
        raise invalid("Not expecting 'instances' and 'inputs' keys in one request")
    if "instances" in document:
        instances = document["instances"]
        if not isinstance(instances, list) or not instances:
            raise invalid("'instances' must be a non-empty list")
        return JsonRequest(signature_name=name, row_format=True, values=instances)
    if "inputs" in document:
        return JsonRequest(signature_name=name, row_format=False, values=document["inputs"])
    raise invalid("Missing 'inputs' or 'instances' key")


def to_arrays(request: JsonRequest, signature: Signature) -> Arrays:
    """The inputs in the dtypes that the signature asks for. Raises `RequestError`."""
    columns = _columns(request, signature)
    for alias in columns:
        if alias not in signature.inputs:
            raise invalid(
                f'"{alias}" is not an input of the signature; it has'
                f" {', '.join(sorted(signature.inputs))}"
            )
    return {
        alias: _array(alias, value, signature.inputs[alias]) for alias, value in columns.items()
    }


def _columns(request: JsonRequest, signature: Signature) -> dict[str, Any]:
    values = request.values
    if not request.row_format:
        if _is_named(values):
            return dict(values)
        return {_only_input(signature): values}
    if not _is_named(values[0]):
        if any(_is_named(value) for value in values):
            raise invalid("'instances' must hold objects only, or none")
        return {_only_input(signature): values}
    keys = values[0].keys()
    for number, value in enumerate(values):
        if not _is_named(value) or value.keys() != keys:
            raise invalid(
                f"Failed to process element: {number} of 'instances' list. Expected an object"
                f" with the keys {', '.join(sorted(keys))} as in element 0"
            )
    return {key: [value[key] for value in values] for key in keys}


def _is_named(value: Any) -> bool:
    """An object that names inputs, not the wrapper of base64 data."""
    return isinstance(value, dict) and value.keys() != {"b64"}


def _only_input(signature: Signature) -> str:
    if len(signature.inputs) != 1:
        raise invalid(
            f"the signature has {len(signature.inputs)} inputs, so each value must be named:"
            f" {', '.join(sorted(signature.inputs))}"
        )
    return next(iter(signature.inputs))


def _array(alias: str, value: Any, spec: TensorSpec) -> np.ndarray[Any, Any]:
    if spec.dtype == pb.DT_STRING:
        return _strings(alias, value)
    dtype = tensors.numpy_dtype(spec.dtype)
    try:
        found = np.asarray(value)
    except ValueError as error:
        raise invalid(
            f'input "{alias}": the lists differ in length or depth; expected {spec}'
        ) from error
    if not found.size and found.dtype.kind == "f":
        return found.astype(dtype)
    if found.dtype.kind not in {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}.get(dtype.kind, ""):
        raise invalid(
            f'input "{alias}": JSON values of type {_json_type(found)} are not of expected type:'
            f" {tensors.dtype_name(spec.dtype)}"
        )
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if found.min() < limits.min or found.max() > limits.max:
            raise invalid(
                f'input "{alias}": values from {found.min()} to {found.max()} do not fit'
                f" {tensors.dtype_name(spec.dtype)} ({limits.min} to {limits.max})"
            )
    return found.astype(dtype)


def _json_type(array: np.ndarray[Any, Any]) -> str:
    return {"f": "Number", "i": "Integer", "u": "Integer", "b": "Bool"}.get(
        array.dtype.kind, "String or Object"
    )


def _strings(alias: str, value: Any) -> np.ndarray[Any, Any]:
    shape: list[int] = []
    level = value
    while isinstance(level, list) and level:
        shape.append(len(level))
        level = level[0]
    flat: list[bytes] = []
    _flatten(alias, value, len(shape), flat)
    array = np.empty(len(flat), dtype=object)
    array[:] = flat
    try:
        return array.reshape(shape)
    except ValueError as error:
        raise invalid(f'input "{alias}": the lists differ in length') from error


def _flatten(alias: str, value: Any, depth: int, flat: list[bytes]) -> None:
    if depth and isinstance(value, list):
        for item in value:
            _flatten(alias, item, depth - 1, flat)
    elif isinstance(value, str):
        flat.append(value.encode("utf-8"))
    elif isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str):
        try:
            flat.append(base64.b64decode(value["b64"], validate=True))
        except binascii.Error as error:
            raise invalid(f'input "{alias}": Unable to base64 decode: {error}') from error
    else:
        raise invalid(f'input "{alias}": expected strings or {{"b64": ...}} objects')


def answer(outputs: Arrays, *, row_format: bool) -> bytes:
    """The body of the answer, in the format of the request. Raises `RequestError`."""
    plain = {alias: _plain(array) for alias, array in outputs.items()}
    if not row_format:
        document: Any = next(iter(plain.values())) if len(plain) == 1 else plain
        return _text({"outputs": document})
    sizes = {array.shape[0] if array.ndim else None for array in outputs.values()}
    if len(sizes) != 1 or None in sizes:
        raise invalid(
            "the outputs have no common first axis, so they have no row format; ask with 'inputs'"
        )
    if len(plain) == 1:
        return _text({"predictions": next(iter(plain.values()))})
    rows = zip(*plain.values(), strict=True)
    return _text({"predictions": [dict(zip(plain, row, strict=True)) for row in rows]})


def _plain(array: np.ndarray[Any, Any]) -> Any:
    if array.dtype == object:
        return _decoded(array.tolist())
    if array.dtype == np.float32:
        # the shortest digits that read back as the same float32
        return _shortened(array)
    return array.tolist()


def _shortened(array: np.ndarray[Any, Any]) -> Any:
    texts = [float(str(number)) for number in array.ravel()]
    return np.array(texts, dtype=np.float64).reshape(array.shape).tolist()


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode("ascii")}


def _text(document: Any) -> bytes:
    return json.dumps(document).encode("utf-8")
