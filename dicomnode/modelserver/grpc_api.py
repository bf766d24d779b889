"""The gRPC door: PredictionService, ModelService and grpc.health.v1."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from dicomnode.logs import get_logger
from dicomnode.modelserver import predict
from dicomnode.modelserver.errors import RequestError
from dicomnode.modelserver.metrics import ServerMetrics, status_name
from dicomnode.modelserver.models import Models
from dicomnode.modelserver.options import Options
from dicomnode.wire import methods
from dicomnode.wire.generated import serving_pb2 as pb

log = get_logger(__name__)

_LONGEST_SECONDS = 600.0
"""For a request that came without a deadline."""

Handler = Callable[[Any, Any], Any]


class GrpcApi:
    """A gRPC server on `port`, which is the real one when 0 was asked for.

    Raises OSError when the port cannot be bound.
    """

    def __init__(self, models: Models, metrics: ServerMetrics, options: Options) -> None:
        self._models = models
        self._metrics = metrics
        self._health = health.HealthServicer()
        self._server = grpc.server(
            ThreadPoolExecutor(options.grpc_max_threads, thread_name_prefix="grpc"),
            options=_channel_options(options.maximum_message_bytes),
            maximum_concurrent_rpcs=options.grpc_max_threads + options.max_enqueued_requests,
        )
        self._server.add_generic_rpc_handlers((self._prediction(), self._model()))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        try:
            self.port = self._server.add_insecure_port(f"{_bracketed(options.host)}:{options.port}")
        except RuntimeError as error:
            raise OSError(f"cannot listen on {options.host}:{options.port}: {error}") from error
        if not self.port:
            raise OSError(f"cannot listen on {options.host}:{options.port}")

    def start(self) -> None:
        self._server.start()

    def report_health(self, serving: bool) -> None:
        """What grpc.health.v1 answers for the whole server and for PredictionService."""
        status = (
            health_pb2.HealthCheckResponse.SERVING
            if serving
            else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        self._health.set("", status)
        self._health.set(methods.PREDICTION_SERVICE, status)

    def stop(self, grace_seconds: float) -> None:
        """Take no more requests, and wait for those that run."""
        self._health.enter_graceful_shutdown()
        self._server.stop(grace_seconds).wait(grace_seconds + 5.0)

    def _prediction(self) -> Any:
        handlers = {
            methods.PREDICT.name: self._unary(methods.PREDICT, self._predict),
            methods.GET_MODEL_METADATA.name: self._unary(
                methods.GET_MODEL_METADATA,
                lambda request, _: predict.metadata(self._models, request),
            ),
        }
        return grpc.method_handlers_generic_handler(methods.PREDICTION_SERVICE, handlers)

    def _model(self) -> Any:
        handlers = {
            methods.GET_MODEL_STATUS.name: self._unary(
                methods.GET_MODEL_STATUS, lambda request, _: predict.status(self._models, request)
            ),
            methods.HANDLE_RELOAD_CONFIG.name: self._unary(
                methods.HANDLE_RELOAD_CONFIG, self._reload
            ),
        }
        return grpc.method_handlers_generic_handler(methods.MODEL_SERVICE, handlers)

    def _predict(self, request: Any, context: Any) -> Any:
        left = context.time_remaining()
        timeout = _LONGEST_SECONDS if left is None else min(left, _LONGEST_SECONDS)
        return predict.predict(self._models, request, timeout=timeout)

    def _reload(self, request: Any, _context: Any) -> Any:
        self._models.reload(request.config)
        return pb.ReloadConfigResponse(status=pb.StatusProto())

    def _unary(self, method: methods.Method, handle: Handler) -> Any:
        def behaviour(request: Any, context: Any) -> Any:
            started = time.perf_counter()
            code, message, response = grpc.StatusCode.OK, "", None
            try:
                response = handle(request, context)
            except RequestError as error:
                code, message = error.code, error.message
            except Exception as error:
                code, message = grpc.StatusCode.INTERNAL, f"{type(error).__name__} in {method.name}"
                log.exception("request.crashed", method=method.name)
            self._observe(method, request, code, time.perf_counter() - started)
            if code is not grpc.StatusCode.OK:
                context.abort(code, message)
            return response

        return grpc.unary_unary_rpc_method_handler(
            behaviour,
            request_deserializer=method.request.FromString,
            response_serializer=method.response.SerializeToString,
        )

    def _observe(self, method: methods.Method, request: Any, code: Any, seconds: float) -> None:
        if method is methods.PREDICT:
            self._metrics.observe(
                model=request.model_spec.name,
                api="Predict",
                entrypoint="GRPC",
                status=status_name(code),
                seconds=seconds,
            )


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _channel_options(maximum_message_bytes: int) -> list[tuple[str, Any]]:
    return [
        ("grpc.max_receive_message_length", maximum_message_bytes),
        ("grpc.max_send_message_length", maximum_message_bytes),
        # two servers on one port would share its connections at random
        ("grpc.so_reuseport", 0),
        # a client's pings during a long inference are welcome
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
