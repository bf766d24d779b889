"""The checked-in proto, its generated code, and the official stubs say the same."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from dicomnode.wire import methods
from dicomnode.wire.compile import PROTO
from dicomnode.wire.generated import serving_pb2 as pb


def test_generated_code_agrees_with_the_proto_file(tmp_path: Path) -> None:
    """Whoever edits serving.proto and forgets to compile it is told here."""
    pytest.importorskip("grpc_tools")
    out = tmp_path / "set.pb"
    root = PROTO.parents[2]
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{root}"]
    command += [f"--descriptor_set_out={out}", "dicomnode/wire/serving.proto"]
    subprocess.run(command, check=True, cwd=root, timeout=60)
    (fresh,) = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    checked_in = descriptor_pb2.FileDescriptorProto.FromString(pb.DESCRIPTOR.serialized_pb)
    _without_json_names(fresh)
    _without_json_names(checked_in)
    assert checked_in == fresh


def _without_json_names(message: object) -> None:
    for kind in message.message_type if hasattr(message, "message_type") else message.nested_type:  # type: ignore[attr-defined]
        for field in kind.field:
            field.ClearField("json_name")
        _without_json_names(kind)


_OFFICIAL = {
    "tensorflow.core.framework.tensor_pb2": ["TensorProto"],
    "tensorflow.core.framework.tensor_shape_pb2": ["TensorShapeProto"],
    "tensorflow.core.protobuf.meta_graph_pb2": ["TensorInfo", "SignatureDef"],
    "tensorflow_serving.apis.model_pb2": ["ModelSpec"],
    "tensorflow_serving.apis.predict_pb2": ["PredictRequest", "PredictResponse"],
    "tensorflow_serving.apis.prediction_log_pb2": ["PredictLog", "PredictionLog"],
    "tensorflow_serving.apis.get_model_metadata_pb2": [
        "SignatureDefMap",
        "GetModelMetadataRequest",
        "GetModelMetadataResponse",
    ],
    "tensorflow_serving.apis.get_model_status_pb2": [
        "GetModelStatusRequest",
        "ModelVersionStatus",
        "GetModelStatusResponse",
    ],
    "tensorflow_serving.apis.status_pb2": ["StatusProto"],
    "tensorflow_serving.apis.model_management_pb2": ["ReloadConfigRequest", "ReloadConfigResponse"],
    "tensorflow_serving.config.model_server_config_pb2": [
        "ModelConfig",
        "ModelConfigList",
        "ModelServerConfig",
    ],
    "tensorflow_serving.config.file_system_storage_path_source_pb2": [
        "FileSystemStoragePathSourceConfig"
    ],
}


def _assert_fields_agree(ours: object, theirs: object) -> None:
    for field in ours.fields:  # type: ignore[attr-defined]
        other = theirs.fields_by_name[field.name]  # type: ignore[attr-defined]
        found = (field.number, field.type, field.is_repeated, field.is_packed)
        assert found == (other.number, other.type, other.is_repeated, other.is_packed), field
        if field.enum_type:
            for value in field.enum_type.values:
                assert other.enum_type.values_by_name[value.name].number == value.number
        if field.message_type and field.message_type.name == other.message_type.name:
            _assert_nested_agree(field.message_type, other.message_type)


def _assert_nested_agree(ours: object, theirs: object) -> None:
    if ours.full_name.startswith("dicomnode."):  # type: ignore[attr-defined]
        _assert_fields_agree(ours, theirs)


@pytest.mark.parametrize("module", sorted(_OFFICIAL))
def test_every_field_has_the_official_number_and_type(module: str) -> None:
    official = pytest.importorskip(module)
    for name in _OFFICIAL[module]:
        _assert_fields_agree(getattr(pb, name).DESCRIPTOR, getattr(official, name).DESCRIPTOR)


def test_method_paths_are_those_of_the_official_services() -> None:
    pytest.importorskip("tensorflow_serving")
    prediction = importlib.import_module("tensorflow_serving.apis.prediction_service_pb2")
    model = importlib.import_module("tensorflow_serving.apis.model_service_pb2")
    official = {
        f"/{service.full_name}/{method.name}"
        for module in (prediction, model)
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    offered = {
        method.path
        for method in (
            methods.PREDICT,
            methods.GET_MODEL_METADATA,
            methods.GET_MODEL_STATUS,
            methods.HANDLE_RELOAD_CONFIG,
        )
    }
    refused = {f"/{methods.PREDICTION_SERVICE}/{name}" for name in methods.NOT_OFFERED}
    assert offered | refused == official


def test_packed_signatures_open_with_the_official_message() -> None:
    official = pytest.importorskip("tensorflow_serving.apis.get_model_metadata_pb2")
    ours = pb.SignatureDefMap()
    ours.signature_def["uint8"].inputs["image"].dtype = pb.DT_UINT8
    theirs = official.SignatureDefMap()
    assert methods.pack_signatures(ours).Unpack(theirs)
    assert theirs.signature_def["uint8"].inputs["image"].dtype == pb.DT_UINT8
    assert methods.unpack_signatures(methods.pack_signatures(theirs)) == ours


def test_metadata_of_another_kind_is_refused() -> None:
    packed = methods.pack_signatures(pb.SignatureDefMap())
    packed.type_url = "type.googleapis.com/tensorflow.serving.Other"
    with pytest.raises(ValueError, match="expected"):
        methods.unpack_signatures(packed)


def test_importing_the_wire_brings_no_tensorflow() -> None:
    code = (
        "import sys, dicomnode.wire.tensors, dicomnode.wire.methods;"
        "sys.exit(any(name.startswith('tensorflow') for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
