"""What is asked, and what is believed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dicomnode.errors import ModelRefused, OtherSizeWanted
from dicomnode.serving import answers
from dicomnode.wire import methods, tensors
from dicomnode.wire.generated import serving_pb2 as pb

IMAGE = np.full((224, 224, 3), 255, np.uint8)


def _metadata(**signatures: tuple[int, list[int]]) -> Any:
    found = pb.SignatureDefMap()
    for name, (dtype, shape) in signatures.items():
        info = found.signature_def[name].inputs["x"]
        info.dtype = dtype
        for size in shape:
            info.tensor_shape.dim.add(size=size)
        found.signature_def[name].outputs["probabilities"].dtype = pb.DT_FLOAT
    response = pb.GetModelMetadataResponse()
    response.model_spec.version.value = 3
    response.metadata["signature_def"].CopyFrom(methods.pack_signatures(found))
    return response


SHAPE = [-1, 224, 224, 3]


@pytest.mark.parametrize(
    ("offered", "asked"),
    [
        (["serving_default", "uint8", "explain"], "explain"),
        (["serving_default", "uint8"], "uint8"),
        (["serving_default"], "serving_default"),
    ],
)
def test_the_richest_signature_is_asked(offered: list[str], asked: str) -> None:
    kinds = {name: (pb.DT_FLOAT if "def" in name else pb.DT_UINT8, SHAPE) for name in offered}
    question = answers.question(_metadata(**kinds), backend="b")
    assert (question.signature, question.input_name, question.version) == (asked, "x", 3)


def test_a_signature_that_takes_something_else_is_passed_over() -> None:
    question = answers.question(
        _metadata(explain=(pb.DT_UINT8, [-1, 512, 512, 1]), uint8=(pb.DT_UINT8, SHAPE)),
        backend="b",
    )
    assert question.signature == "uint8"


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (_metadata(other=(pb.DT_UINT8, SHAPE)), "other"),
        (_metadata(serving_default=(pb.DT_STRING, [-1])), "DT_STRING"),
        (_metadata(serving_default=(pb.DT_FLOAT, [-1, 512, 512, 1])), r"512, 512, 1"),
        (pb.GetModelMetadataResponse(), "cannot be read"),
    ],
)
def test_a_model_that_takes_no_image_is_refused_in_words(metadata: Any, words: str) -> None:
    with pytest.raises(ModelRefused, match=words):
        answers.question(metadata, backend="b")


def test_a_float_signature_gets_the_image_in_0_to_1() -> None:
    asked = answers.Question(
        signature="serving_default", input_name="x", dtype=pb.DT_FLOAT, version=1
    )
    request = answers.request(IMAGE, asked, model_name="m", version=None)
    sent = tensors.from_proto(request.inputs["x"])
    assert (sent.dtype, sent.shape, float(sent.max())) == (np.float32, (1, 224, 224, 3), 1.0)
    assert not request.model_spec.HasField("version")


def test_a_uint8_request_is_small_and_names_its_version() -> None:
    asked = answers.Question(signature="explain", input_name="x", dtype=pb.DT_UINT8, version=1)
    request = answers.request(IMAGE, asked, model_name="m", version=7)
    assert request.model_spec.version.value == 7
    assert len(request.SerializeToString()) < 151_000


@pytest.mark.parametrize("image", [IMAGE[:, :, :1], IMAGE.astype(np.float32), IMAGE[np.newaxis]])
def test_what_is_no_rgb_image_is_never_sent(image: Any) -> None:
    with pytest.raises(ModelRefused, match="preprocess profile"):
        answers.check_image(image)


@pytest.mark.parametrize(
    ("size", "taken"),
    [([-1, -1], True), ([224, 224], True), ([224, -1], True), ([299, 299], False)],
)
def test_an_image_is_sent_only_to_a_version_of_its_size(size: list[int], taken: bool) -> None:
    asked = answers.question(_metadata(explain=(pb.DT_UINT8, [-1, *size, 3])), backend="b")
    assert asked.takes(IMAGE) is taken
    if not taken:
        with pytest.raises(
            OtherSizeWanted, match=r"version 3 at b takes images of \[299"
        ) as caught:
            answers.check_size(IMAGE, asked, model_name="m", backend="b")
        assert caught.value.model_version == 3


def _response(**outputs: Any) -> Any:
    response = pb.PredictResponse()
    response.model_spec.version.value = 3
    for name, value in outputs.items():
        response.outputs[name].CopyFrom(tensors.to_proto(np.asarray(value, np.float32)))
    return response


def test_an_answer_names_version_and_backend() -> None:
    found = answers.prediction(
        _response(probabilities=[[0.25, 0.75]], cam=[[[0.0, 1.0]]], embedding=[[5.0]]),
        model_name="m",
        backend="b",
    )
    assert (found.model_version, found.backend, found.probabilities) == (3, "b", (0.25, 0.75))
    assert found.cam is not None
    assert found.cam.shape == (1, 2)
    assert found.embedding is not None
    assert found.embedding.tolist() == [5.0]


def test_a_single_output_needs_no_name() -> None:
    found = answers.prediction(_response(dense_1=[[0.5, 0.5]]), model_name="m", backend="b")
    assert found.probabilities == (0.5, 0.5)
    assert found.cam is None


@pytest.mark.parametrize(
    ("response", "words"),
    [
        (_response(probabilities=[[np.nan, 1.0]]), "not finite"),
        (_response(probabilities=[[1.5, -0.5]]), "expected 0 to 1"),
        (_response(probabilities=[[0.2, 0.2]]), "sum to 0.4"),
        (_response(probabilities=[[1.0]]), "one per class"),
        (_response(probabilities=[0.5, 0.5]), "2 axes"),
        (_response(probabilities=[[0.5, 0.5], [0.5, 0.5]]), "one image"),
        (_response(a=[[1.0]], b=[[1.0]]), "no 'probabilities'"),
        (_response(probabilities=[[0.5, 0.5]], cam=[[[7.0]]]), "'cam' from 7 to 7"),
        (_response(probabilities=[[0.5, 0.5]], embedding=[[np.inf]]), "'embedding'"),
        (pb.PredictResponse(), "which version"),
    ],
)
def test_nonsense_is_refused_and_never_reported(response: Any, words: str) -> None:
    with pytest.raises(ModelRefused, match=words):
        answers.prediction(response, model_name="m", backend="b")


def test_a_tensor_that_is_none_is_refused() -> None:
    response = _response(probabilities=[[0.5, 0.5]])
    response.outputs["probabilities"].tensor_content = b"12"
    with pytest.raises(ModelRefused, match="no tensor"):
        answers.prediction(response, model_name="m", backend="b")
