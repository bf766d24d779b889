"""JSON bodies of the REST API, both formats."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from dicomnode.modelserver import rest_json
from dicomnode.modelserver.errors import RequestError
from dicomnode.modelserver.signatures import Signature, TensorSpec
from dicomnode.wire.generated import serving_pb2 as pb


def _spec(dtype: int) -> TensorSpec:
    return TensorSpec(name="x:0", dtype=dtype, shape=None)


ONE = Signature(inputs={"x": _spec(pb.DT_FLOAT)}, outputs={})
BYTES = Signature(inputs={"x": _spec(pb.DT_UINT8)}, outputs={})
TWO = Signature(inputs={"x": _spec(pb.DT_FLOAT), "y": _spec(pb.DT_INT32)}, outputs={})
TEXT = Signature(inputs={"x": _spec(pb.DT_STRING)}, outputs={})


def _arrays(document: Any, signature: Signature) -> dict[str, Any]:
    request = rest_json.parse(json.dumps(document).encode())
    return {name: array.tolist() for name, array in rest_json.to_arrays(request, signature).items()}


@pytest.mark.parametrize(
    ("document", "signature", "expected"),
    [
        ({"instances": [[1, 2], [3, 4]]}, ONE, {"x": [[1, 2], [3, 4]]}),
        ({"instances": [{"x": 1, "y": 2}, {"x": 3, "y": 4}]}, TWO, {"x": [1, 3], "y": [2, 4]}),
        ({"inputs": [[1, 2]]}, ONE, {"x": [[1, 2]]}),
        ({"inputs": {"x": [1.5], "y": [2]}}, TWO, {"x": [1.5], "y": [2]}),
        ({"instances": ["a", {"b64": "/w=="}]}, TEXT, {"x": [b"a", b"\xff"]}),
        ({"inputs": {"b64": "YQ=="}}, TEXT, {"x": b"a"}),
        ({"instances": [255]}, BYTES, {"x": [255]}),
    ],
)
def test_rows_and_columns_become_arrays(document: Any, signature: Signature, expected: Any) -> None:
    assert _arrays(document, signature) == expected


def test_nan_is_read_and_written_as_a_bare_word() -> None:
    request = rest_json.parse(b'{"instances": [NaN, Infinity]}')
    array = rest_json.to_arrays(request, ONE)["x"]
    assert np.isnan(array[0])
    body = rest_json.answer({"y": array}, row_format=True)
    assert body == b'{"predictions": [NaN, Infinity]}'


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "JSON Parse error"),
        (b"[1]", "not an object"),
        (b"{}", "Missing 'inputs' or 'instances'"),
        (b'{"instances": [1], "inputs": [1]}', "Not expecting"),
        (b'{"instances": []}', "non-empty list"),
        (b'{"instances": [1], "signature_name": 3}', "signature_name"),
        (b"[" * 200_000, "JSON Parse error"),
        (b'{"instances": "\xff"}', "JSON Parse error"),
    ],
)
def test_a_body_that_is_no_request_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        rest_json.parse(body)


@pytest.mark.parametrize(
    ("document", "signature", "words"),
    [
        ({"instances": [[1, 2], [3]]}, ONE, "differ in length"),
        ({"instances": ["a"]}, ONE, "not of expected type: DT_FLOAT"),
        ({"instances": [None]}, ONE, "not of expected type"),
        ({"instances": [True]}, ONE, "Bool"),
        ({"instances": [1.5]}, BYTES, "not of expected type: DT_UINT8"),
        ({"instances": [256]}, BYTES, "do not fit"),
        ({"instances": [{"z": 1}]}, ONE, '"z" is not an input'),
        ({"instances": [{"x": 1}, {"y": 1}]}, TWO, "element: 1"),
        ({"instances": [1, {"x": 1}]}, ONE, "objects only"),
        ({"instances": [1]}, TWO, "must be named"),
        ({"instances": [{"b64": "%"}]}, TEXT, "base64"),
        ({"instances": [1]}, TEXT, "expected strings"),
        ({"instances": [["a"], ["b", "c"]]}, TEXT, "differ in length"),
    ],
)
def test_values_that_do_not_fit_are_refused_in_words(
    document: Any, signature: Signature, words: str
) -> None:
    with pytest.raises(RequestError, match=words):
        _arrays(document, signature)


def test_the_answer_has_the_format_of_the_request() -> None:
    p = np.array([[0.1, 0.9], [0.5, 0.5]], np.float32)
    e = np.array([1, 2], np.int32)
    rows = json.loads(rest_json.answer({"p": p}, row_format=True))
    assert rows == {"predictions": [[0.1, 0.9], [0.5, 0.5]]}
    named = json.loads(rest_json.answer({"p": p, "e": e}, row_format=True))
    assert named == {"predictions": [{"p": [0.1, 0.9], "e": 1}, {"p": [0.5, 0.5], "e": 2}]}
    assert json.loads(rest_json.answer({"p": p}, row_format=False)) == {"outputs": P_LIST}
    columns = json.loads(rest_json.answer({"p": p, "e": e}, row_format=False))
    assert columns == {"outputs": {"p": P_LIST, "e": [1, 2]}}


P_LIST = [[0.1, 0.9], [0.5, 0.5]]


def test_outputs_without_a_common_axis_have_no_rows() -> None:
    with pytest.raises(RequestError, match="ask with 'inputs'"):
        rest_json.answer({"a": np.zeros(2), "b": np.zeros(3)}, row_format=True)


def test_bytes_that_are_no_text_come_back_as_base64() -> None:
    array = np.array([b"a", b"\xff"], dtype=object)
    assert json.loads(rest_json.answer({"s": array}, row_format=True)) == {
        "predictions": ["a", {"b64": "/w=="}]
    }
