"""Our client over real sockets, against model servers that fail in every way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import psutil
import pytest

from dicomnode.config import ServingSettings
from dicomnode.errors import BackendUnavailable, ModelRefused, OtherSizeWanted
from dicomnode.findings import Prediction
from dicomnode.metrics import Metrics
from dicomnode.serving import ServingClient
from dicomnode.testing.model_servers import FakeModelServer
from dicomnode.wire.generated import serving_pb2 as pb

IMAGE = np.full((224, 224, 3), 255, np.uint8)

Connect = Callable[..., ServingClient]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Clients of some servers, closed at the end."""
    clients: list[ServingClient] = []

    def make(*servers: FakeModelServer, **options: Any) -> ServingClient:
        metrics = options.pop("metrics", None)
        lookup = options.pop("lookup", None)
        targets = options.pop("targets", [server.target for server in servers])
        settings = ServingSettings(targets=targets, **options)
        more = {} if lookup is None else {"lookup": lookup}
        clients.append(ServingClient(settings, metrics=metrics, **more))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def _await(condition: Callable[[], bool]) -> None:
    """For what happens on the client's own threads, which announce nothing."""
    pause = threading.Event()
    for _ in range(1000):
        if condition():
            return
        pause.wait(0.01)
    pytest.fail("the condition did not come true in ten seconds")


def test_a_prediction_has_everything_that_explain_gives(connect: Connect) -> None:
    with FakeModelServer(version=7) as server:
        found = connect(server).predict(IMAGE)
    assert (found.model_name, found.model_version, found.backend) == ("covid19", 7, server.target)
    assert found.probabilities == pytest.approx((0.1192, 0.8808), abs=1e-4)
    assert found.cam is not None
    assert found.cam.shape == (7, 7)
    assert found.embedding is not None
    assert found.embedding.shape == (3,)


@pytest.mark.parametrize("signatures", [("serving_default", "uint8"), ("serving_default",)])
def test_a_version_with_fewer_signatures_answers_with_less(
    connect: Connect, signatures: tuple[str, ...]
) -> None:
    with FakeModelServer(signatures=signatures) as server:
        found = connect(server).predict(IMAGE)
    assert found.probabilities == pytest.approx((0.1192, 0.8808), abs=1e-4)
    assert found.cam is None
    assert found.embedding is None


def test_a_new_version_that_wants_to_be_asked_differently_is_asked_differently(
    connect: Connect,
) -> None:
    """The signatures were learned from version 1; version 2 comes between two requests."""
    with FakeModelServer(version=1) as server:
        client = connect(server)
        assert client.predict(IMAGE).cam is not None
        server.version, server.signatures = 2, ("serving_default",)
        second = client.predict(IMAGE)
        assert (second.model_version, second.cam) == (2, None)
        server.version, server.signatures = 3, ("serving_default", "explain")
        assert client.predict(IMAGE).model_version == 3
        assert client.predict(IMAGE).cam is not None


def test_a_version_that_takes_another_size_is_named_and_not_asked(connect: Connect) -> None:
    """Version 2 takes 299 x 299; it comes and goes between requests."""
    large = np.full((299, 299, 3), 255, np.uint8)
    metrics = Metrics()
    with FakeModelServer(version=1) as server:
        client = connect(server, metrics=metrics)
        assert client.predict(IMAGE).model_version == 1
        with pytest.raises(OtherSizeWanted) as caught:
            client.predict(large)
        assert caught.value.model_version == 1
        server.version, server.side = 2, 299
        assert client.predict(large).model_version == 2
        with pytest.raises(OtherSizeWanted) as caught:
            client.predict(IMAGE)
        assert caught.value.model_version == 2
        server.version, server.side = 1, 224
        assert client.predict(IMAGE).model_version == 1
        assert server.answered == 3
        labels = {"backend": server.target, "code": "INVALID_ARGUMENT"}
    refused = metrics.registry.get_sample_value("dicomnode_inference_requests_total", labels)
    assert refused is None, "an image of the wrong size was never sent"


def test_a_version_that_comes_between_question_and_request_is_asked_in_its_way(
    connect: Connect,
) -> None:
    with FakeModelServer(version=1) as server:
        server.failures = [grpc.StatusCode.INVALID_ARGUMENT]
        assert connect(server).predict(IMAGE).model_version == 1


def test_a_version_can_be_asked_for(connect: Connect) -> None:
    with FakeModelServer(version=2) as server:
        client = connect(server)
        assert client.predict(IMAGE, version=2).model_version == 2
        with pytest.raises(ModelRefused, match="version 9 of 'covid19' is not served"):
            client.predict(IMAGE, version=9)


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.CANCELLED,
    ],
)
def test_what_one_backend_cannot_do_another_does(connect: Connect, code: grpc.StatusCode) -> None:
    metrics = Metrics()
    with FakeModelServer() as bad, FakeModelServer() as good:
        bad.always = code
        client = connect(bad, good, metrics=metrics)
        found = [client.predict(IMAGE).backend for _ in range(10)]
    assert found == [good.target] * 10
    counted = metrics.registry.get_sample_value
    labels = {"backend": bad.target, "code": code.name}
    assert (counted("dicomnode_inference_requests_total", labels) or 0) >= 1


def test_a_backend_that_hangs_costs_one_try_and_not_the_request(connect: Connect) -> None:
    with FakeModelServer() as hung, FakeModelServer() as good:
        client = connect(hung, good, try_timeout_seconds=0.3)
        client.predict(IMAGE)
        hung.gate.clear()
        assert {client.predict(IMAGE).backend for _ in range(4)} == {good.target}


def test_a_refused_request_is_never_tried_elsewhere(connect: Connect) -> None:
    with FakeModelServer() as one, FakeModelServer() as two:
        one.always = two.always = grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(ModelRefused, match="told to fail"):
            connect(one, two).predict(IMAGE)
        # the backend that refused was asked again with fresh metadata at most
        assert one.most_at_once + two.most_at_once == 1


def test_nonsense_is_refused_and_never_reported(connect: Connect) -> None:
    def spoil(response: Any) -> Any:
        response.outputs["probabilities"].tensor_content = np.float32([np.nan, 1]).tobytes()
        return response

    with FakeModelServer() as server:
        server.spoil = spoil
        with pytest.raises(ModelRefused, match="not finite"):
            connect(server).predict(IMAGE)


def test_when_all_fail_the_job_may_come_back(connect: Connect) -> None:
    with FakeModelServer() as one, FakeModelServer() as two:
        one.always = two.always = grpc.StatusCode.INTERNAL
        with pytest.raises(BackendUnavailable, match="2 model servers failed") as error:
            connect(one, two).predict(IMAGE)
    assert one.target in str(error.value)
    assert "INTERNAL" in str(error.value)


def test_a_replica_that_has_not_loaded_the_model_gets_no_request(connect: Connect) -> None:
    with FakeModelServer() as loading, FakeModelServer() as good:
        loading.state = pb.ModelVersionStatus.LOADING
        client = connect(loading, good)
        assert {client.predict(IMAGE).backend for _ in range(6)} == {good.target}
        assert not loading.arrived.is_set()
        loading.state = pb.ModelVersionStatus.AVAILABLE
        _await(lambda: client.predict(IMAGE).backend == loading.target)


def test_a_failing_backend_is_left_out_and_comes_back_after_a_probe(connect: Connect) -> None:
    metrics = Metrics()
    with FakeModelServer() as bad, FakeModelServer() as good:
        client = connect(bad, good, metrics=metrics)

        def ejected() -> float | None:
            return metrics.registry.get_sample_value(
                "dicomnode_backend_ejected", {"backend": bad.target}
            )

        _await(lambda: client.predict(IMAGE).backend == bad.target)
        bad.always = grpc.StatusCode.INTERNAL
        bad.state = pb.ModelVersionStatus.UNLOADING
        _await(lambda: client.predict(IMAGE) is not None and ejected() == 1.0)
        bad.always = None
        bad.state = pb.ModelVersionStatus.AVAILABLE
        _await(lambda: client.predict(IMAGE).backend == bad.target)
        assert ejected() == 0.0


def test_full_backends_make_the_caller_wait_until_one_has_room(connect: Connect) -> None:
    with FakeModelServer() as server, ThreadPoolExecutor(3) as pool:
        client = connect(server, maximum_in_flight=2)
        client.predict(IMAGE)
        server.gate.clear()
        server.most_at_once = 0
        waiting = [pool.submit(client.predict, IMAGE) for _ in range(3)]
        _await(lambda: server.most_at_once == 2)
        server.gate.set()
        assert all(isinstance(future.result(10), Prediction) for future in waiting)
        assert server.most_at_once == 2


def test_the_wait_for_room_ends_at_the_deadline(connect: Connect) -> None:
    with FakeModelServer() as server, ThreadPoolExecutor(1) as pool:
        patient = connect(server, maximum_in_flight=1, timeout_seconds=1.0)
        patient.predict(IMAGE)
        server.gate.clear()
        server.arrived.clear()
        held = pool.submit(patient.predict, IMAGE)
        assert server.arrived.wait(10)
        with pytest.raises(BackendUnavailable, match=r"1 requests in flight|failed"):
            patient.predict(IMAGE)
        with pytest.raises(BackendUnavailable):
            held.result(10)


def test_ready_means_that_some_replica_is_available(connect: Connect) -> None:
    with FakeModelServer() as one, FakeModelServer() as two:
        one.state = pb.ModelVersionStatus.LOADING
        assert connect(one, two).ready()
        two.state = pb.ModelVersionStatus.END
        assert not connect(one, two).ready()
        assert not connect(one, model_name="other").ready()


def test_nobody_there_is_an_outage_that_names_the_targets_to_check(connect: Connect) -> None:
    with FakeModelServer() as server:
        target = server.target
    client = connect(targets=[target], timeout_seconds=0.5)
    assert not client.ready()
    with pytest.raises(BackendUnavailable, match=r"check serving\.targets"):
        client.predict(IMAGE)


def test_a_closed_client_says_so(connect: Connect) -> None:
    with FakeModelServer() as server:
        client = connect(server)
        client.predict(IMAGE)
        client.close()
        with pytest.raises(BackendUnavailable, match="closed"):
            client.predict(IMAGE)
        assert not client.ready()


def test_every_address_of_a_name_is_used_and_changes_are_followed(connect: Connect) -> None:
    """A headless service: three loopback addresses stand for three pods."""
    with (
        FakeModelServer(host="127.0.0.1") as one,
        FakeModelServer(host="127.0.0.2", port=one.port) as two,
        FakeModelServer(host="127.0.0.3", port=one.port) as three,
    ):
        addresses = [one.host, two.host]
        metrics = Metrics()
        client = connect(
            targets=[f"dns:///inference-headless:{one.port}"],
            lookup=lambda *_: list(addresses),
            resolve_seconds=0.05,
            metrics=metrics,
        )
        seen: set[str] = set()

        def asked() -> set[str]:
            seen.add(client.predict(IMAGE).backend)
            return seen

        _await(lambda: asked() == {one.target, two.target})
        addresses.append(three.host)
        _await(lambda: three.target in asked())
        addresses.remove(two.host)
        known = metrics.registry.get_sample_value
        gauge, labels = "dicomnode_inference_in_flight", {"backend": two.target}
        _await(lambda: known(gauge, labels) is None)
        seen.clear()
        for _ in range(12):
            asked()
        assert seen == {one.target, three.target}


def test_a_vanished_backend_finishes_what_it_has(connect: Connect) -> None:
    with FakeModelServer() as server, ThreadPoolExecutor(1) as pool:
        addresses = [server.host]
        client = connect(
            targets=[f"dns:///inference:{server.port}"],
            lookup=lambda *_: list(addresses),
            resolve_seconds=0.05,
            timeout_seconds=5.0,
        )
        client.predict(IMAGE)
        server.gate.clear()
        server.arrived.clear()
        running = pool.submit(client.predict, IMAGE)
        assert server.arrived.wait(10)
        addresses.clear()
        _await(lambda: not client.ready())
        server.gate.set()
        assert running.result(10).backend == server.target
        _await(lambda: not _connections_to(server.port))


def _connections_to(port: int) -> list[object]:
    found = psutil.Process().net_connections("tcp")
    return [one for one in found if one.raddr and one.raddr.port == port]


def test_one_of_three_is_killed_and_no_request_fails(connect: Connect) -> None:
    with FakeModelServer() as one, FakeModelServer() as two, FakeModelServer() as three:
        for server in (one, two, three):
            server.service_seconds = 0.002
        client = connect(one, two, three)
        _await(lambda: len({client.predict(IMAGE).backend for _ in range(9)}) == 3)
        with ThreadPoolExecutor(6) as pool:
            futures = [pool.submit(client.predict, IMAGE) for _ in range(300)]
            futures[60].result(30)
            two.stop()
            found = [future.result(30) for future in futures]
    assert len(found) == 300


def test_two_nodes_in_one_process_share_no_connection(connect: Connect) -> None:
    """Each client has channels of its own: closing one leaves the other alone."""
    with FakeModelServer() as server:
        first, second = connect(server), connect(server)
        first.predict(IMAGE)
        second.predict(IMAGE)
        first.close()
        assert second.predict(IMAGE).backend == server.target
