"""One request, answered: what both doors share.

Source: tensorflow_serving/servables/tensorflow/predict_util.cc, get_model_metadata_impl.cc
and model_servers/get_model_status_impl.cc, whose codes and words clients may match on.
"""

from __future__ import annotations

from typing import Any

from dicomnode.modelserver.errors import invalid, not_found
from dicomnode.modelserver.manager import Held
from dicomnode.modelserver.models import Models
from dicomnode.modelserver.signatures import Arrays, Signature, check_filter, check_inputs, find
from dicomnode.wire import methods, tensors
from dicomnode.wire.generated import serving_pb2 as pb
from dicomnode.wire.tensors import TensorError

MAXIMUM_ELEMENTS = 1 << 26
"""Of one input: a few bytes may declare a tensor of one repeated value."""


def predict(models: Models, request: Any, *, timeout: float | None) -> Any:
    """Answer a PredictRequest. Raises `RequestError`."""
    spec = request.model_spec
    manager = models.named(spec.name, version_of(spec))
    with manager.hold(version_of(spec), spec.version_label) as held:
        name, signature = find(held.servable.signatures, spec.signature_name)
        inputs = {alias: _array(alias, proto) for alias, proto in request.inputs.items()}
        outputs = run(held, name, signature, inputs, timeout=timeout)
        response = pb.PredictResponse()
        response.model_spec.name = spec.name
        response.model_spec.version.value = held.version
        response.model_spec.signature_name = name
        for alias in check_filter(name, signature, list(request.output_filter)):
            response.outputs[alias].CopyFrom(tensors.to_proto(outputs[alias]))
        return response


def run(
    held: Held, name: str, signature: Signature, inputs: Arrays, *, timeout: float | None
) -> Arrays:
    """Check the inputs and run them, with others if there are any."""
    check_inputs(name, signature, inputs)
    return held.batcher.submit(name, inputs, batchable=signature.batchable, timeout=timeout)


def metadata(models: Models, request: Any) -> Any:
    """Answer a GetModelMetadataRequest. Raises `RequestError`."""
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    if not request.metadata_field:
        raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
    for field in request.metadata_field:
        if field != methods.SIGNATURE_DEF_FIELD:
            raise invalid(f"Metadata field {field} is not supported")
    spec = request.model_spec
    with models.named(spec.name, version_of(spec)).hold(
        version_of(spec), spec.version_label
    ) as held:
        signatures = pb.SignatureDefMap()
        for name, signature in held.servable.signatures.items():
            signatures.signature_def[name].CopyFrom(signature.to_proto())
        response = pb.GetModelMetadataResponse()
        response.model_spec.name = spec.name
        response.model_spec.version.value = held.version
        packed = methods.pack_signatures(signatures)
        response.metadata[methods.SIGNATURE_DEF_FIELD].CopyFrom(packed)
        return response


def status(models: Models, request: Any) -> Any:
    """Answer a GetModelStatusRequest. Raises `RequestError`."""
    if not request.HasField("model_spec"):
        raise invalid("Missing ModelSpec")
    spec = request.model_spec
    manager = models.get(spec.name)
    if manager is None:
        raise not_found(f"Could not find any versions of model {spec.name}")
    response = pb.GetModelStatusResponse()
    for found in manager.statuses(version_of(spec)):
        entry = response.model_version_status.add(version=found.version, state=int(found.state))
        entry.status.error_code = pb.UNKNOWN if found.error else pb.OK
        entry.status.error_message = found.error
    return response


def version_of(spec: Any) -> int | None:
    """The version that a ModelSpec names; None for the newest.

    Versions start at 1. ovmsclient says 0 when its caller named none, and OpenVINO's
    model server takes that for the newest, as this one does.
    """
    if spec.WhichOneof("version_choice") != "version":
        return None
    return int(spec.version.value) or None


def _array(alias: str, proto: Any) -> Any:
    try:
        return tensors.from_proto(proto, maximum_elements=MAXIMUM_ELEMENTS)
    except TensorError as error:
        raise invalid(f'tensor parsing error: input "{alias}": {error}') from error
