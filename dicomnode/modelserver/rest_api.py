"""The REST door: `/v1/models/...`, and the Prometheus page.

Source: tensorflow_serving/model_servers/http_rest_api_handler.cc. A thread of its own
runs the event loop; requests are read and answered on a bounded pool of threads.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import uvicorn
from google.protobuf import json_format
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from dicomnode.logs import get_logger
from dicomnode.modelserver import predict, rest_json
from dicomnode.modelserver.errors import HTTP_STATUS, RequestError, invalid
from dicomnode.modelserver.metrics import ServerMetrics, status_name
from dicomnode.modelserver.models import Models
from dicomnode.modelserver.options import Options
from dicomnode.modelserver.signatures import find
from dicomnode.wire import methods
from dicomnode.wire.generated import serving_pb2 as pb

log = get_logger(__name__)

PROMETHEUS_PATH = "/monitoring/prometheus/metrics"
_BACKLOG = 128
_MAXIMUM_VERSION = 2**63 - 1


class RestApi:
    """An HTTP server on `port`, which is the real one when 0 was asked for.

    Raises OSError when the port cannot be bound.
    """

    def __init__(self, models: Models, metrics: ServerMetrics, options: Options) -> None:
        self._models = models
        self._metrics = metrics
        self._options = options
        self._pool = ThreadPoolExecutor(options.rest_api_num_threads, thread_name_prefix="rest")
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        self._socket = socket.create_server(
            (options.host, options.rest_api_port or 0), family=family, backlog=_BACKLOG
        )
        self.port: int = self._socket.getsockname()[1]
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._application(),
                log_config=None,
                access_log=False,
                lifespan="off",
                limit_concurrency=options.max_enqueued_requests + options.rest_api_num_threads,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=int(options.drain_seconds) or 1,
            )
        )
        self._thread = threading.Thread(target=self._serve, name="rest", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Take no more requests, and wait for those that run."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(self._options.drain_seconds + 5.0)
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._socket.close()

    def _serve(self) -> None:
        # signals belong to the main thread, so `Server.run` would not do
        asyncio.run(self._server.serve(sockets=[self._socket]))

    def _application(self) -> Starlette:
        versions = "/v1/models/{name:str}/versions/{version:str}"
        return Starlette(
            routes=[
                Route(PROMETHEUS_PATH, self._prometheus, methods=["GET"]),
                # the more specific pattern first: {name} would swallow ":predict"
                Route(versions + ":{verb:str}", self._ask, methods=["POST"]),
                Route(versions + "/metadata", self._metadata, methods=["GET"]),
                Route(versions, self._status, methods=["GET"]),
                Route("/v1/models/{name:str}:{verb:str}", self._ask, methods=["POST"]),
                Route("/v1/models/{name:str}/metadata", self._metadata, methods=["GET"]),
                Route("/v1/models/{name:str}", self._status, methods=["GET"]),
                Route("/{path:path}", self._malformed, methods=["GET", "POST", "PUT", "DELETE"]),
            ]
        )

    async def _prometheus(self, _request: Request) -> Response:
        return Response(self._metrics.page(), media_type="text/plain; version=0.0.4")

    async def _malformed(self, request: Request) -> Response:
        return _error(invalid(f"Malformed request: {request.method} {request.url.path}"))

    async def _status(self, request: Request) -> Response:
        return await self._answered(lambda: self._status_body(_spec(request)))

    async def _metadata(self, request: Request) -> Response:
        return await self._answered(lambda: self._metadata_body(_spec(request)))

    async def _ask(self, request: Request) -> Response:
        verb = request.path_params["verb"]
        if verb != "predict":
            return _error(
                RequestError(
                    grpc.StatusCode.UNIMPLEMENTED,
                    f"{verb} is not offered here; this server answers predict",
                )
            )
        started = time.perf_counter()
        timeout = self._options.rest_api_timeout_in_ms / 1000
        try:
            async with asyncio.timeout(timeout):
                body = await self._body(request)
        except TimeoutError:
            return _error(
                RequestError(grpc.StatusCode.DEADLINE_EXCEEDED, "the body did not arrive in time")
            )
        except ClientDisconnect:
            return Response(status_code=499)
        if body is None:
            limit = self._options.maximum_message_bytes
            return _json({"error": f"the body is larger than {limit} bytes"}, 413)
        response, code = await self._carried_out(
            lambda: self._predict_body(_spec(request), body, started + timeout)
        )
        self._metrics.observe(
            model=request.path_params["name"],
            api="Predict",
            entrypoint="REST",
            status=status_name(code),
            seconds=time.perf_counter() - started,
        )
        return response

    async def _body(self, request: Request) -> bytes | None:
        """None when it is larger than allowed; it is not read any further then."""
        limit = self._options.maximum_message_bytes
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > limit:
            return None
        parts = bytearray()
        async for chunk in request.stream():
            parts += chunk
            if len(parts) > limit:
                return None
        return bytes(parts)

    async def _answered(self, work: Callable[[], bytes]) -> Response:
        response, _ = await self._carried_out(work)
        return response

    async def _carried_out(self, work: Callable[[], bytes]) -> tuple[Response, grpc.StatusCode]:
        loop = asyncio.get_running_loop()
        try:
            body = await loop.run_in_executor(self._pool, work)
        except RequestError as error:
            return _error(error), error.code
        except Exception as error:
            log.exception("request.crashed", method="REST")
            failure = RequestError(grpc.StatusCode.INTERNAL, f"{type(error).__name__}")
            return _error(failure), failure.code
        return Response(body, media_type="application/json"), grpc.StatusCode.OK

    def _status_body(self, spec: Any) -> bytes:
        response = predict.status(self._models, pb.GetModelStatusRequest(model_spec=spec))
        return _printed(response)

    def _metadata_body(self, spec: Any) -> bytes:
        request = pb.GetModelMetadataRequest(
            model_spec=spec, metadata_field=[methods.SIGNATURE_DEF_FIELD]
        )
        response = predict.metadata(self._models, request)
        packed = response.metadata[methods.SIGNATURE_DEF_FIELD]
        signatures = json_format.MessageToDict(
            methods.unpack_signatures(packed),
            preserving_proto_field_name=True,
            always_print_fields_with_no_presence=True,
        )
        document = {
            "model_spec": {
                "name": response.model_spec.name,
                "signature_name": "",
                "version": str(response.model_spec.version.value),
            },
            "metadata": {methods.SIGNATURE_DEF_FIELD: signatures},
        }
        return _text(document)

    def _predict_body(self, spec: Any, body: bytes, deadline: float) -> bytes:
        request = rest_json.parse(body)
        version = predict.version_of(spec)
        with self._models.named(spec.name, version).hold(version) as held:
            name, signature = find(held.servable.signatures, request.signature_name)
            inputs = rest_json.to_arrays(request, signature)
            left = deadline - time.perf_counter()
            if left <= 0:
                raise RequestError(grpc.StatusCode.DEADLINE_EXCEEDED, "the request took too long")
            outputs = predict.run(held, name, signature, inputs, timeout=left)
        return rest_json.answer(outputs, row_format=request.row_format)


def _spec(request: Request) -> Any:
    spec = pb.ModelSpec(name=request.path_params["name"])
    version = request.path_params.get("version")
    if version is not None:
        if not (version.isascii() and version.isdigit()) or int(version) > _MAXIMUM_VERSION:
            raise invalid(f"Failed to convert version: {version} to numeric.")
        spec.version.value = int(version)
    return spec


def _printed(message: Any) -> bytes:
    document = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return _text(document)


def _text(document: Any) -> bytes:
    return json.dumps(document, indent=1).encode("utf-8")


def _json(document: Any, status: int) -> Response:
    return Response(_text(document), status_code=status, media_type="application/json")


def _error(error: RequestError) -> Response:
    return _json({"error": error.message}, HTTP_STATUS[error.code])
