"""One model server: a channel of its own and what is known of it.

The state (`health`, `in_flight`, `latency` ...) belongs to the client, which guards it
with one lock; the calls may be made from any thread without it.
"""

from __future__ import annotations

from typing import Any

import grpc

from dicomnode.errors import BackendUnavailable
from dicomnode.serving.answers import Question
from dicomnode.serving.balancer import Health, Load, faded, smoothed
from dicomnode.serving.resolver import Address
from dicomnode.wire import methods
from dicomnode.wire.generated import serving_pb2 as pb

MAXIMUM_MESSAGE_BYTES = 16 * 1024 * 1024
"""A request is 150 KB (600 KB for a float signature), an answer a few KB."""

_CHANNEL_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", MAXIMUM_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAXIMUM_MESSAGE_BYTES),
    # otherwise channels to one address share a connection, and its fate
    ("grpc.use_local_subchannel_pool", 1),
    # the balancer decides what is tried again, and where
    ("grpc.enable_retries", 0),
    # http_proxy of a hospital's network is not meant for the cluster
    ("grpc.enable_http_proxy", 0),
    # a dead peer is noticed while a request waits for it; TensorFlow Serving answers
    # pings on idle connections with "too many pings"
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 0),
    # a probe must not find a channel that still waits before it connects again
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]


class Backend:
    """A model server at one address."""

    def __init__(self, address: Address, *, model_name: str, limit: int) -> None:
        self.address = address
        self.name = str(address)
        self.health = Health()
        self.in_flight = 0
        self.vanished = False
        self.questions: dict[int | None, Question] = {}
        self._model_name = model_name
        self._limit = limit
        self._latency: float | None = None
        self._answered_at = 0.0
        self._channel = grpc.insecure_channel(address.target, options=_CHANNEL_OPTIONS)
        self._predict = _unary(self._channel, methods.PREDICT)
        self._metadata = _unary(self._channel, methods.GET_MODEL_METADATA)
        self._status = _unary(self._channel, methods.GET_MODEL_STATUS)

    # ---------------------------------------------------------------- state

    def load(self, now: float) -> Load:
        return Load(
            in_flight=self.in_flight,
            limit=self._limit,
            out=self.health.out,
            latency=faded(self._latency, now - self._answered_at)
            if not self.in_flight
            else self._latency,
        )

    def note_latency(self, seconds: float, *, now: float) -> None:
        self._latency = smoothed(self._latency, seconds)
        self._answered_at = now

    # ---------------------------------------------------------------- calls

    def predict(self, request: Any, *, timeout: float) -> Any:
        """A PredictResponse. Raises `grpc.RpcError`; `BackendUnavailable` after `close`."""
        return self._called(self._predict, request, timeout)

    def metadata(self, version: int | None, *, timeout: float) -> Any:
        """A GetModelMetadataResponse. Raises as `predict`."""
        request = pb.GetModelMetadataRequest(metadata_field=[methods.SIGNATURE_DEF_FIELD])
        request.model_spec.name = self._model_name
        if version is not None:
            request.model_spec.version.value = version
        return self._called(self._metadata, request, timeout)

    def _called(self, call: Any, request: Any, timeout: float) -> Any:
        try:
            return call(request, timeout=timeout)
        except ValueError as error:
            raise BackendUnavailable(
                f"the channel to {self.name} was closed while the node ends"
            ) from error

    def probe(self, *, timeout: float) -> Any:
        """A future of a GetModelStatusResponse, for `serves`."""
        request = pb.GetModelStatusRequest()
        request.model_spec.name = self._model_name
        return self._status.future(request, timeout=timeout)

    def close(self) -> None:
        self._channel.close()


def serves(probe: Any) -> bool:
    """Whether a probe came back with an AVAILABLE version. Blocks up to its timeout."""
    try:
        response = probe.result()
    except (grpc.RpcError, grpc.FutureCancelledError):
        return False
    return any(
        status.state == pb.ModelVersionStatus.AVAILABLE for status in response.model_version_status
    )


def _unary(channel: Any, method: methods.Method) -> Any:
    return channel.unary_unary(
        method.path,
        request_serializer=method.request.SerializeToString,
        response_deserializer=method.response.FromString,
    )
