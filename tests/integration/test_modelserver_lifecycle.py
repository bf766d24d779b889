"""Versions come, go, are broken and are withdrawn while requests run."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from dicomnode.modelserver.main import ModelServer
from dicomnode.modelserver.manager import ModelManager, State
from dicomnode.modelserver.options import Options
from dicomnode.wire import methods, tensors
from dicomnode.wire.generated import serving_pb2 as pb

pytest.importorskip("tensorflow", reason="needs the `model` extra")

from dicomnode.testing.saved_models import write_tiny_version

NAME = "covid19"
IMAGE = np.full((1, 224, 224, 3), 255, np.uint8)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_version(tmp_path_factory.mktemp("exported"), 1)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / NAME
    folder.mkdir()
    return folder


@pytest.fixture
def publish(exported: Path, base: Path) -> Callable[[int], Path]:
    """A version as the trainer publishes it: staged, then renamed."""

    def publish(version: int, into: Path = base) -> Path:
        staging = into / f".staging-{version}"
        shutil.copytree(exported, staging)
        return staging.rename(into / str(version))

    return publish


class Served:
    """A model server and a way to ask it."""

    def __init__(self, server: ModelServer) -> None:
        self.server = server
        self._channel = grpc.insecure_channel(f"127.0.0.1:{server.port}")

    @property
    def manager(self) -> ModelManager:
        manager = self.server.models.get(NAME)
        assert manager is not None
        return manager

    def call(self, method: methods.Method, request: Any) -> Any:
        call = self._channel.unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        return call(request, timeout=30)

    def predict(self, **spec: Any) -> Any:
        request = pb.PredictRequest()
        request.model_spec.name = NAME
        request.model_spec.signature_name = "uint8"
        if "label" in spec:
            request.model_spec.version_label = spec["label"]
        if "version" in spec:
            request.model_spec.version.value = spec["version"]
        request.inputs["image"].CopyFrom(tensors.to_proto(IMAGE))
        return self.call(methods.PREDICT, request)

    def version(self) -> int:
        return int(self.predict().model_spec.version.value)

    def states(self) -> dict[int, State]:
        return {status.version: status.state for status in self.manager.statuses()}

    def close(self) -> None:
        self._channel.close()


@pytest.fixture
def serve(base: Path) -> Iterator[Callable[..., Served]]:
    running: list[tuple[ModelServer, Served]] = []

    def serve(**more: Any) -> Served:
        options: dict[str, Any] = {"model_name": NAME, "model_base_path": base, "port": 0}
        # 0: the tests look themselves, so that nothing depends on the clock
        options["file_system_poll_wait_seconds"] = 0.0
        server = ModelServer(Options(**(options | more)))
        server.start()
        served = Served(server)
        running.append((server, served))
        return served

    yield serve
    for server, served in running:
        served.close()
        server.stop()


def test_a_new_version_takes_over_and_the_old_one_is_unloaded(
    publish: Callable[..., Path], serve: Callable[..., Served]
) -> None:
    publish(1)
    served = serve()
    assert served.manager.wait_until_available(1, 60)
    assert served.version() == 1
    publish(2)
    served.manager.poll()
    assert served.version() == 2
    assert served.states() == {2: State.AVAILABLE, 1: State.END}


def test_the_server_watches_the_folder_by_itself(
    publish: Callable[..., Path], serve: Callable[..., Served]
) -> None:
    served = serve(file_system_poll_wait_seconds=0.05)
    assert not served.server.models.serving
    publish(1)
    assert served.manager.wait_until_available(1, 60)
    publish(2)
    assert served.manager.wait_until_available(2, 60)


def test_a_withdrawn_version_gives_way_to_the_one_before(
    publish: Callable[..., Path], serve: Callable[..., Served], base: Path
) -> None:
    publish(1)
    publish(2)
    served = serve()
    assert served.manager.wait_until_available(2, 60)
    (base / "withdrawn").mkdir()
    (base / "2").rename(base / "withdrawn" / "2")
    served.manager.poll()
    assert served.version() == 1


def test_a_broken_version_is_reported_and_the_old_one_serves(
    publish: Callable[..., Path], serve: Callable[..., Served], base: Path
) -> None:
    publish(1)
    served = serve()
    assert served.manager.wait_until_available(1, 60)
    (base / "2").mkdir()
    (base / "2" / "saved_model.pb").write_bytes(b"not a model")
    (base / "3").mkdir()
    served.manager.poll()
    assert served.version() == 1
    assert served.states() == {3: State.END, 2: State.END, 1: State.AVAILABLE}
    request = pb.GetModelStatusRequest()
    request.model_spec.name = NAME
    request.model_spec.version.value = 3
    (status,) = served.call(methods.GET_MODEL_STATUS, request).model_version_status
    assert status.status.error_code != pb.OK
    assert "Could not find SavedModel" in status.status.error_message


def test_a_restart_with_a_broken_newest_version_serves_the_one_before(
    publish: Callable[..., Path], serve: Callable[..., Served], base: Path
) -> None:
    publish(1)
    (base / "2").mkdir()
    served = serve()
    assert served.manager.wait_until_available(1, 60)
    assert served.version() == 1


def test_a_broken_version_that_is_repaired_is_loaded(
    publish: Callable[..., Path], serve: Callable[..., Served], base: Path
) -> None:
    publish(1)
    (base / "2").mkdir()
    served = serve()
    assert served.manager.wait_until_available(1, 60)
    (base / "2").rmdir()
    publish(2)
    served.manager.poll()
    assert served.version() == 2


def test_a_warm_up_request_that_fails_keeps_a_version_away(
    publish: Callable[..., Path], serve: Callable[..., Served]
) -> None:
    import tensorflow as tf

    good = pb.PredictionLog()
    good.predict_log.request.model_spec.signature_name = "uint8"
    good.predict_log.request.inputs["image"].CopyFrom(tensors.to_proto(IMAGE))
    bad = pb.PredictionLog()
    bad.predict_log.request.model_spec.signature_name = "nope"
    for version, record in ((1, good), (2, bad)):
        path = publish(version) / "assets.extra" / "tf_serving_warmup_requests"
        with tf.io.TFRecordWriter(str(path)) as writer:
            writer.write(record.SerializeToString())
    served = serve()
    assert served.manager.wait_until_available(1, 60)
    (failed,) = served.manager.statuses(2)
    assert "warm-up failed" in failed.error


def test_a_base_path_that_disappears_leaves_what_is_loaded(
    publish: Callable[..., Path], serve: Callable[..., Served], base: Path
) -> None:
    publish(1)
    served = serve()
    assert served.manager.wait_until_available(1, 60)
    base.rename(base.with_name("unmounted"))
    served.manager.poll()
    assert served.version() == 1


def test_no_request_fails_while_versions_change(
    publish: Callable[..., Path], serve: Callable[..., Served], base: Path
) -> None:
    publish(1)
    served = serve()
    assert served.manager.wait_until_available(1, 60)
    done = threading.Event()

    def ask() -> set[int]:
        seen = set()
        while not done.is_set():
            seen.add(served.version())
        return seen

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask) for _ in range(4)]
        try:
            for version in (2, 3, 4):
                publish(version)
                served.manager.poll()
            (base / "4").rename(base / ".withdrawn-4")
            served.manager.poll()
        finally:
            done.set()
        seen = set().union(*(future.result(60) for future in asking))
    assert {2, 3} <= seen <= {1, 2, 3, 4}
    assert served.version() == 3


def _reload(served: Served, base: Path, **policy: Any) -> Any:
    request = pb.ReloadConfigRequest()
    entry = request.config.model_config_list.config.add(name=NAME, base_path=str(base))
    entry.model_platform = "tensorflow"
    for label, version in policy.pop("labels", {}).items():
        entry.version_labels[label] = version
    entry.model_version_policy.CopyFrom(
        pb.FileSystemStoragePathSourceConfig.ServableVersionPolicy(**policy)
    )
    return served.call(methods.HANDLE_RELOAD_CONFIG, request)


def test_versions_can_be_pinned_and_labelled(
    publish: Callable[..., Path], serve: Callable[..., Served], base: Path
) -> None:
    publish(1)
    publish(2)
    served = serve()
    assert served.manager.wait_until_available(2, 60)
    assert _reload(served, base, specific={"versions": [1, 2]}).status.error_code == pb.OK
    assert served.predict(version=1).model_spec.version.value == 1
    _reload(served, base, specific={"versions": [1, 2]}, labels={"stable": 1, "canary": 2})
    assert served.predict(label="stable").model_spec.version.value == 1
    assert served.predict(label="canary").model_spec.version.value == 2
    with pytest.raises(grpc.RpcError, match="Unrecognized servable version label: other"):
        served.predict(label="other")
    _reload(served, base, latest={"num_versions": 1})
    assert served.states()[1] is State.END


def test_a_reload_without_a_model_list_is_refused(
    publish: Callable[..., Path], serve: Callable[..., Served]
) -> None:
    publish(1)
    served = serve()
    with pytest.raises(grpc.RpcError) as error:
        served.call(methods.HANDLE_RELOAD_CONFIG, pb.ReloadConfigRequest())
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_model_can_be_added_and_taken_away(
    publish: Callable[..., Path], serve: Callable[..., Served], base: Path, tmp_path: Path
) -> None:
    publish(1)
    other = tmp_path / "other"
    other.mkdir()
    publish(5, other)
    served = serve()
    assert served.manager.wait_until_available(1, 60)
    request = pb.ReloadConfigRequest()
    request.config.model_config_list.config.add(name="other", base_path=str(other))
    served.call(methods.HANDLE_RELOAD_CONFIG, request)
    assert served.server.models.get(NAME) is None
    status = pb.GetModelStatusRequest()
    status.model_spec.name = "other"
    (found,) = served.call(methods.GET_MODEL_STATUS, status).model_version_status
    assert (found.version, found.state) == (5, pb.ModelVersionStatus.AVAILABLE)


def test_calls_that_are_not_offered_are_unimplemented(serve: Callable[..., Served]) -> None:
    served = serve()
    with grpc.insecure_channel(f"127.0.0.1:{served.server.port}") as channel:
        for name in methods.NOT_OFFERED:
            call = channel.unary_unary(f"/{methods.PREDICTION_SERVICE}/{name}")
            with pytest.raises(grpc.RpcError) as error:
                call(b"", timeout=10)
            assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_health_follows_the_model(
    publish: Callable[..., Path], serve: Callable[..., Served]
) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    served = serve(file_system_poll_wait_seconds=0.05)
    with grpc.insecure_channel(f"127.0.0.1:{served.server.port}") as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(), timeout=60
        )
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        publish(1)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()
