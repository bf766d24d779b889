"""Versions, flags, signatures and statuses of the model server: decisions without tensorflow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from dicomnode.modelserver.errors import HTTP_STATUS, RequestError
from dicomnode.modelserver.options import parse
from dicomnode.modelserver.signatures import (
    Signature,
    TensorSpec,
    check_filter,
    check_inputs,
    find,
    zeros,
)
from dicomnode.modelserver.versions import Policy, Step, look, next_step, wanted
from dicomnode.wire.generated import serving_pb2 as pb

# ---------------------------------------------------------------- versions


@pytest.mark.parametrize(
    ("found", "policy", "expected"),
    [
        ([1, 2, 3], Policy(), [3]),
        ([1, 2, 3], Policy(latest=2), [3, 2]),
        ([1, 2], Policy(), [2]),
        ([1, 2, 3], Policy(specific=(1, 9)), [1]),
        ([1, 2, 3], Policy(everything=True), [3, 2, 1]),
        ([], Policy(), []),
    ],
)
def test_which_versions_are_wanted(found: list[int], policy: Policy, expected: list[int]) -> None:
    assert wanted(found, policy) == expected


@pytest.mark.parametrize(
    ("want", "available", "step"),
    [
        ([2], [1], Step(load=(2,), unload=())),  # the old one stays until the new one is there
        ([2], [1, 2], Step(load=(), unload=(1,))),
        ([1], [2], Step(load=(1,), unload=())),  # a rollback, the same way round
        ([2], [2], Step(load=(), unload=())),
        ([], [2], Step(load=(), unload=(2,))),
        ([3, 2], [], Step(load=(3, 2), unload=())),
    ],
)
def test_load_first_and_unload_afterwards(
    want: list[int], available: list[int], step: Step
) -> None:
    assert next_step(wanted=want, available=available) == step


def test_only_numbered_folders_are_versions(tmp_path: Path) -> None:
    for name in ("1", "02", ".staging-3", "withdrawn", "v4", "-5", "٦"):
        (tmp_path / name).mkdir()
    (tmp_path / "7").write_text("a file")
    assert sorted(look(tmp_path)) == [1, 2]


def test_replaced_files_change_the_stamp(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    before = look(tmp_path)[1].stamp
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"new")
    assert look(tmp_path)[1].stamp != before


# ---------------------------------------------------------------- flags


def test_the_flags_of_tensorflow_model_server_are_understood() -> None:
    flags = ["--port=8510", "--rest_api_port", "8511", "-model_name=covid19"]
    flags += ["--model_base_path=/m", "--enable_batching=false", "--max_batch_size=4"]
    flags += ["--batch_timeout_micros=500", "--file_system_poll_wait_seconds=2"]
    flags += ["--grpc_max_threads=32", "--rest_api_timeout_in_ms=1000"]
    flags += ["--tensorflow_intra_op_parallelism=2", "--parent_pipe"]
    options = parse(flags)
    assert (options.port, options.rest_api_port, options.model_name) == (8510, 8511, "covid19")
    assert (options.enable_batching, options.max_batch_size) == (False, 4)
    assert options.intra_op_parallelism == 2
    assert options.parent_pipe
    assert options.host == "127.0.0.1"


def test_rest_port_0_means_no_rest() -> None:
    assert parse(["--model_base_path=/m", "--rest_api_port=0"]).rest_api_port is None


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--model_base_path=/m", "--port=70000"],
        ["--model_base_path=/m", "--enable_batching=perhaps"],
        ["--model_base_path=/m", "--model_name=a/b"],
        ["--model_base_path=/m", "--prot=1"],
    ],
)
def test_a_wrong_flag_ends_with_2(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse(flags)
    assert end.value.code == 2
    assert "error:" in capsys.readouterr().err


# ---------------------------------------------------------------- signatures

IMAGE = TensorSpec(name="image:0", dtype=pb.DT_UINT8, shape=(None, 224, 224, 3))
ANSWER = TensorSpec(name="p:0", dtype=pb.DT_FLOAT, shape=(None, 2))
SIGNATURE = Signature(inputs={"image": IMAGE}, outputs={"probabilities": ANSWER})


def _refusal(work: Any) -> RequestError:
    with pytest.raises(RequestError) as error:
        work()
    return error.value


def test_an_unknown_signature_is_refused_in_tensorflow_servings_words() -> None:
    error = _refusal(lambda: find({"uint8": SIGNATURE}, ""))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert 'Serving signature name: "serving_default" not found in signature def' in error.message
    assert "uint8" in error.message


def test_missing_and_extra_inputs_are_named() -> None:
    error = _refusal(lambda: check_inputs("uint8", SIGNATURE, {"x": np.zeros(1)}))
    assert "Sent extra: {x}. Missing but required: {image}." in error.message


@pytest.mark.parametrize(
    ("array", "got"),
    [
        (np.zeros((1, 224, 224, 3), np.float32), "DT_FLOAT [1,224,224,3]"),
        (np.zeros((1, 512, 512, 3), np.uint8), "DT_UINT8 [1,512,512,3]"),
        (np.zeros((224, 224, 3), np.uint8), "DT_UINT8 [224,224,3]"),
    ],
)
def test_what_was_expected_and_what_came_are_named(array: Any, got: str) -> None:
    error = _refusal(lambda: check_inputs("uint8", SIGNATURE, {"image": array}))
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "expects DT_UINT8 [?,224,224,3]" in error.message
    assert error.message.endswith(f"got {got}")


def test_an_output_filter_is_checked() -> None:
    assert check_filter("s", SIGNATURE, []) == ["probabilities"]
    assert "cam" in _refusal(lambda: check_filter("s", SIGNATURE, ["cam"])).message
    assert (
        "duplicate" in _refusal(lambda: check_filter("s", SIGNATURE, ["probabilities"] * 2)).message
    )


def test_only_signatures_with_a_free_first_axis_are_batched() -> None:
    fixed = TensorSpec(name="x", dtype=pb.DT_UINT8, shape=(1, 224, 224, 3))
    assert SIGNATURE.batchable
    assert not Signature(inputs={"image": fixed}, outputs={"p": ANSWER}).batchable
    assert not Signature(inputs={}, outputs={"p": ANSWER}).batchable


def test_one_item_of_zeros_warms_a_version_up() -> None:
    made = zeros(SIGNATURE)
    assert made is not None
    assert made["image"].shape == (1, 224, 224, 3)
    text = TensorSpec(name="x", dtype=pb.DT_STRING, shape=(None,))
    assert zeros(Signature(inputs={"x": text}, outputs={})) is None


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_every_status_has_a_number_in_rest(code: grpc.StatusCode) -> None:
    assert code in HTTP_STATUS
