"""numpy arrays <-> TensorProto.

Source: tensorflow/core/framework/tensor.proto. A tensor's values are either raw
little-endian bytes in row-major order (`tensor_content`) or numbers in the `*_val`
field of its dtype. In the second form fewer values than elements are allowed: the last
one is repeated, so a single value fills the whole tensor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dicomnode.wire.generated import serving_pb2 as pb

MAXIMUM_ELEMENTS = 1 << 28
"""A message that declares more elements than this is refused before anything is allocated."""

_Array = NDArray[Any]

# DataType -> numpy dtype and the field of its values
_NUMERIC: dict[int, tuple[np.dtype[Any], str]] = {
    pb.DT_FLOAT: (np.dtype("<f4"), "float_val"),
    pb.DT_DOUBLE: (np.dtype("<f8"), "double_val"),
    pb.DT_INT32: (np.dtype("<i4"), "int_val"),
    pb.DT_UINT8: (np.dtype("u1"), "int_val"),
    pb.DT_INT16: (np.dtype("<i2"), "int_val"),
    pb.DT_INT8: (np.dtype("i1"), "int_val"),
    pb.DT_UINT16: (np.dtype("<u2"), "int_val"),
    pb.DT_INT64: (np.dtype("<i8"), "int64_val"),
    pb.DT_BOOL: (np.dtype("?"), "bool_val"),
    pb.DT_UINT32: (np.dtype("<u4"), "uint32_val"),
    pb.DT_UINT64: (np.dtype("<u8"), "uint64_val"),
    pb.DT_HALF: (np.dtype("<f2"), "half_val"),
    pb.DT_COMPLEX64: (np.dtype("<c8"), "scomplex_val"),
    pb.DT_COMPLEX128: (np.dtype("<c16"), "dcomplex_val"),
}
_TYPE_OF = {dtype: number for number, (dtype, _) in _NUMERIC.items()}


class TensorError(ValueError):
    """The message is no tensor: its dtype, shape and values do not fit together."""


def dtype_name(number: int) -> str:
    """`DT_FLOAT` for 1; the bare number for one that this subset does not know."""
    try:
        return str(pb.DataType.Name(number))
    except ValueError:
        return str(number)


def numpy_dtype(number: int) -> np.dtype[Any]:
    """The numpy dtype of a DataType. Raises `TensorError` for one that has none here."""
    if number == pb.DT_STRING:
        return np.dtype(object)
    if number not in _NUMERIC:
        raise TensorError(f"dtype {dtype_name(number)} is not supported")
    return _NUMERIC[number][0]


def data_type(dtype: np.dtype[Any]) -> int:
    """The DataType of a numpy dtype; object, bytes and str count as DT_STRING."""
    if dtype.kind in "OSU":
        return int(pb.DT_STRING)
    number = _TYPE_OF.get(dtype.newbyteorder("<"))
    if number is None:
        raise TensorError(f"numpy dtype {dtype} has no DataType in the subset that is spoken here")
    return number


def shape_of(proto: Any) -> tuple[int | None, ...] | None:
    """A TensorShapeProto as a tuple, None for an unknown size; None for unknown rank."""
    if proto.unknown_rank:
        return None
    return tuple(dim.size if dim.size >= 0 else None for dim in proto.dim)


def to_proto(array: _Array, *, as_values: bool = False) -> Any:
    """A TensorProto that holds `array`, as `tensor_content` or, with `as_values`, as `*_val`.

    Raises `TensorError` for a dtype that has no DataType.
    """
    number = data_type(array.dtype)
    proto = pb.TensorProto(
        dtype=number,
        tensor_shape=pb.TensorShapeProto(
            dim=[pb.TensorShapeProto.Dim(size=size) for size in array.shape]
        ),
    )
    if number == pb.DT_STRING:
        proto.string_val.extend(_as_bytes(item) for item in array.ravel().tolist())
        return proto
    dtype, field = _NUMERIC[number]
    contiguous = np.ascontiguousarray(array, dtype=dtype)
    if not as_values:
        proto.tensor_content = contiguous.tobytes()
    elif number == pb.DT_HALF:
        proto.half_val.extend(contiguous.view("<u2").ravel().tolist())
    elif contiguous.dtype.kind == "c":
        real = contiguous.reshape(-1).view(contiguous.real.dtype)
        getattr(proto, field).extend(real.tolist())
    else:
        getattr(proto, field).extend(contiguous.ravel().tolist())
    return proto


def from_proto(proto: Any, *, maximum_elements: int = MAXIMUM_ELEMENTS) -> _Array:
    """The array that a TensorProto holds; read-only when it views the message's bytes.

    Raises `TensorError` when the shape is not fully known, declares more than
    `maximum_elements`, or does not fit the values.
    """
    shape = _known_shape(proto)
    count = 1
    for size in shape:
        count *= size
    if count > maximum_elements:
        raise TensorError(
            f"shape {list(shape)} declares {count} elements, at most {maximum_elements}"
        )
    if proto.dtype == pb.DT_STRING:
        return _strings(proto, shape, count)
    dtype = numpy_dtype(proto.dtype)
    if proto.tensor_content:
        expected = count * dtype.itemsize
        if len(proto.tensor_content) != expected:
            raise TensorError(
                f"tensor_content holds {len(proto.tensor_content)} bytes, but shape"
                f" {list(shape)} of {dtype_name(proto.dtype)} needs {expected}"
            )
        return np.frombuffer(proto.tensor_content, dtype=dtype).reshape(shape)
    return _filled(_values(proto, dtype), shape, count, proto.dtype)


def _known_shape(proto: Any) -> tuple[int, ...]:
    shape = shape_of(proto.tensor_shape)
    if shape is None:
        raise TensorError("the tensor's rank is unknown; a value needs a shape")
    if any(size is None for size in shape):
        raise TensorError(f"shape {list(shape)} has an unknown size; a value needs all of them")
    return tuple(size for size in shape if size is not None)


def _values(proto: Any, dtype: np.dtype[Any]) -> _Array:
    values = getattr(proto, _NUMERIC[proto.dtype][1])
    if proto.dtype == pb.DT_HALF:
        bits = np.fromiter(values, dtype=np.int64, count=len(values))
        if bits.size and (bits.min() < 0 or bits.max() > 0xFFFF):
            raise TensorError("half_val holds a number that is not 16 bits wide")
        return bits.astype("<u2").view(dtype)
    if dtype.kind == "c":
        if len(values) % 2:
            raise TensorError(f"complex values come in pairs, got {len(values)} numbers")
        part = np.dtype(f"<f{dtype.itemsize // 2}")
        return np.fromiter(values, dtype=part, count=len(values)).view(dtype)
    raw = np.fromiter(values, dtype=_wide(dtype), count=len(values))
    if dtype.kind in "iu" and raw.size and raw.dtype != dtype:
        limits = np.iinfo(dtype)
        if raw.min() < limits.min or raw.max() > limits.max:
            raise TensorError(
                f"int_val holds {int(raw.min())} to {int(raw.max())}, but {dtype_name(proto.dtype)}"
                f" goes from {limits.min} to {limits.max}"
            )
    return raw.astype(dtype)


def _wide(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """int_val carries the small integer types as int32."""
    return np.dtype(np.int32) if dtype.kind in "iu" and dtype.itemsize < 4 else dtype


def _filled(values: _Array, shape: tuple[int, ...], count: int, number: int) -> _Array:
    if values.size == count:
        return values.reshape(shape)
    if values.size > count:
        raise TensorError(
            f"{values.size} values of {dtype_name(number)} for shape {list(shape)},"
            f" which has {count}"
        )
    if not values.size:
        # an empty message means a tensor of zeros (Tensor::FromProto)
        return np.zeros(shape, dtype=values.dtype)
    full = np.empty(count, dtype=values.dtype)
    full[: values.size] = values
    full[values.size :] = values[-1]
    return full.reshape(shape)


def _strings(proto: Any, shape: tuple[int, ...], count: int) -> _Array:
    values = list(proto.string_val)
    if len(values) > count:
        raise TensorError(f"{len(values)} strings for shape {list(shape)}, which has {count}")
    values += [values[-1] if values else b""] * (count - len(values))
    array = np.empty(count, dtype=object)
    array[:] = values
    return array.reshape(shape)


def _as_bytes(item: Any) -> bytes:
    if isinstance(item, bytes):
        return item
    if isinstance(item, str):
        return item.encode("utf-8")
    raise TensorError(f"a string tensor holds bytes or str, got {type(item).__name__}")
