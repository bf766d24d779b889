"""The calls of TensorFlow Serving's API: path, request and response of each.

Source: tensorflow_serving/apis/prediction_service.proto and model_service.proto.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.protobuf import any_pb2

from dicomnode.wire.generated import serving_pb2 as pb

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"

SIGNATURE_DEF_FIELD = "signature_def"
"""The only metadata field that GetModelMetadata knows."""

SIGNATURE_DEF_TYPE_URL = "type.googleapis.com/tensorflow.serving.SignatureDefMap"
"""How clients of TensorFlow Serving expect the Any of GetModelMetadata to be called."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A unary call."""

    service: str
    name: str
    request: Any
    response: Any

    @property
    def path(self) -> str:
        return f"/{self.service}/{self.name}"


PREDICT = Method(
    service=PREDICTION_SERVICE,
    name="Predict",
    request=pb.PredictRequest,
    response=pb.PredictResponse,
)
GET_MODEL_METADATA = Method(
    service=PREDICTION_SERVICE,
    name="GetModelMetadata",
    request=pb.GetModelMetadataRequest,
    response=pb.GetModelMetadataResponse,
)
GET_MODEL_STATUS = Method(
    service=MODEL_SERVICE,
    name="GetModelStatus",
    request=pb.GetModelStatusRequest,
    response=pb.GetModelStatusResponse,
)
HANDLE_RELOAD_CONFIG = Method(
    service=MODEL_SERVICE,
    name="HandleReloadConfigRequest",
    request=pb.ReloadConfigRequest,
    response=pb.ReloadConfigResponse,
)

NOT_OFFERED = ("Classify", "Regress", "MultiInference")
"""Calls of PredictionService on serialised tf.Example, which no image client makes."""


def pack_signatures(signatures: Any) -> Any:
    """A SignatureDefMap as the Any that TensorFlow Serving's clients can unpack."""
    return any_pb2.Any(type_url=SIGNATURE_DEF_TYPE_URL, value=signatures.SerializeToString())


def unpack_signatures(packed: Any) -> Any:
    """The SignatureDefMap inside an Any. Raises ValueError when it holds something else."""
    if packed.type_url.rpartition("/")[2] != SIGNATURE_DEF_TYPE_URL.rpartition("/")[2]:
        raise ValueError(f"metadata is {packed.type_url!r}, expected {SIGNATURE_DEF_TYPE_URL!r}")
    return pb.SignatureDefMap.FromString(packed.value)
