"""numpy arrays and TensorProto, both forms, held against tensorflow's own reader."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dicomnode.wire import tensors
from dicomnode.wire.generated import serving_pb2 as pb
from dicomnode.wire.tensors import TensorError, from_proto, to_proto

_DTYPES = [
    *("<f4", "<f8", "<f2", "<i4", "u1", "<i2", "i1", "<u2", "<i8", "?", "<u4", "<u8"),
    *("<c8", "<c16"),
]


def _example(dtype: str) -> np.ndarray[Any, Any]:
    values = np.arange(6).reshape(2, 3)
    if np.dtype(dtype).kind in "fc":
        values = values - 2.5
    elif np.dtype(dtype).kind == "i":
        values = values - 3
    return values.astype(dtype)


@pytest.mark.parametrize("as_values", [False, True])
@pytest.mark.parametrize("dtype", _DTYPES)
def test_every_dtype_survives_both_forms(dtype: str, as_values: bool) -> None:
    array = _example(dtype)
    back = from_proto(to_proto(array, as_values=as_values))
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize("as_values", [False, True])
@pytest.mark.parametrize("dtype", _DTYPES)
def test_tensorflow_reads_what_we_write(dtype: str, as_values: bool) -> None:
    tensor_pb2 = pytest.importorskip("tensorflow.core.framework.tensor_pb2")
    tensor_util = pytest.importorskip("tensorflow.python.framework.tensor_util")
    array = _example(dtype)
    official = tensor_pb2.TensorProto.FromString(
        to_proto(array, as_values=as_values).SerializeToString()
    )
    np.testing.assert_array_equal(tensor_util.MakeNdarray(official), array)


@pytest.mark.parametrize("dtype", _DTYPES)
def test_we_read_what_tensorflow_writes(dtype: str) -> None:
    tensor_util = pytest.importorskip("tensorflow.python.framework.tensor_util")
    for array in (_example(dtype), np.full((4, 5), 1, dtype=dtype), np.array(1, dtype=dtype)):
        official = tensor_util.make_tensor_proto(array)
        ours = pb.TensorProto.FromString(official.SerializeToString())
        np.testing.assert_array_equal(from_proto(ours), array)


def test_strings_survive_and_str_becomes_utf8() -> None:
    array = np.array([["a", "ä"]], dtype=object)
    back = from_proto(to_proto(array))
    assert back.tolist() == [[b"a", "ä".encode()]]


def test_a_single_value_fills_the_tensor() -> None:
    proto = pb.TensorProto(dtype=pb.DT_FLOAT, float_val=[0.5])
    proto.tensor_shape.dim.add(size=2)
    proto.tensor_shape.dim.add(size=2)
    np.testing.assert_array_equal(from_proto(proto), np.full((2, 2), 0.5, dtype=np.float32))


def test_the_last_value_is_repeated_when_values_are_few() -> None:
    proto = pb.TensorProto(dtype=pb.DT_INT32, int_val=[1, 2])
    proto.tensor_shape.dim.add(size=4)
    assert from_proto(proto).tolist() == [1, 2, 2, 2]


def test_no_values_at_all_are_zeros() -> None:
    proto = pb.TensorProto(dtype=pb.DT_UINT8)
    proto.tensor_shape.dim.add(size=3)
    assert from_proto(proto).tolist() == [0, 0, 0]


def test_an_empty_tensor_keeps_its_shape() -> None:
    assert from_proto(to_proto(np.zeros((0, 224, 224, 3), np.uint8))).shape == (0, 224, 224, 3)


def _proto(dtype: int, shape: list[int], **values: Any) -> Any:
    proto = pb.TensorProto(dtype=dtype, **values)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


@pytest.mark.parametrize(
    ("proto", "words"),
    [
        (_proto(pb.DT_FLOAT, [2], tensor_content=b"123"), "holds 3 bytes"),
        (_proto(pb.DT_FLOAT, [2], float_val=[1, 2, 3]), "3 values"),
        (_proto(pb.DT_UINT8, [1], int_val=[256]), "goes from 0 to 255"),
        (_proto(pb.DT_HALF, [1], half_val=[70000]), "16 bits"),
        (_proto(pb.DT_COMPLEX64, [1], scomplex_val=[1]), "pairs"),
        (_proto(pb.DT_FLOAT, [-1], float_val=[1]), "unknown size"),
        (_proto(pb.DT_FLOAT, [1 << 20, 1 << 20], float_val=[1]), "declares"),
        (_proto(pb.DT_STRING, [1], string_val=[b"a", b"b"]), "2 strings"),
        (_proto(pb.DT_BFLOAT16, [1], half_val=[1]), "DT_BFLOAT16 is not supported"),
        (_proto(20, [1]), "20 is not supported"),
        (pb.TensorProto(dtype=pb.DT_FLOAT, tensor_shape={"unknown_rank": True}), "rank"),
    ],
)
def test_a_message_that_is_no_tensor_is_refused_in_words(proto: Any, words: str) -> None:
    with pytest.raises(TensorError, match=words):
        from_proto(proto)


def test_an_array_without_a_data_type_is_refused() -> None:
    with pytest.raises(TensorError, match="datetime64"):
        to_proto(np.zeros(1, dtype="datetime64[s]"))


def test_a_foreign_byte_order_is_turned_round() -> None:
    np.testing.assert_array_equal(from_proto(to_proto(np.array([1, 2], dtype=">f4"))), [1, 2])


def test_a_shape_is_read_with_its_unknown_sizes() -> None:
    shape = pb.TensorShapeProto(dim=[{"size": -1}, {"size": 224}])
    assert tensors.shape_of(shape) == (None, 224)
    assert tensors.shape_of(pb.TensorShapeProto(unknown_rank=True)) is None
