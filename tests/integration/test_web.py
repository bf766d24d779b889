"""The node's HTTP door while the disk of its store is away."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from dicomnode.metrics import Metrics
from dicomnode.web.app import Health, build_app
from dicomnode.web.server import WebServer
from tests.acceptance.node import free_ports

MORE_THAN_ALL_CONNECTIONS = 80


class Disk:
    """While it is away, whoever reads it does not come back."""

    def __init__(self) -> None:
        self.there = threading.Event()
        self.there.set()

    def reading(self, answer: Any) -> Callable[..., Any]:
        def read(*_: object) -> Any:
            self.there.wait()
            return answer

        return read


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def url(disk: Disk) -> Iterator[str]:
    app = build_app(
        studies=disk.reading([]),
        study=disk.reading(None),
        report=disk.reading(None),
        readiness=disk.reading(Health(checks={"store": "ok"})),
        liveness=lambda: Health(checks={"worker": "ok"}),
        metrics=Metrics(),
        refresh_metrics=disk.reading(None),
    )
    (port,) = free_ports(1)
    server = WebServer(app, host="127.0.0.1", port=port)
    server.start()
    yield f"http://127.0.0.1:{port}"
    disk.there.set()
    server.stop()


def asked(url: str, seconds: float) -> int:
    """The status, or 0 when nobody answered."""
    try:
        return httpx.get(url, timeout=seconds).status_code
    except httpx.TransportError:
        return 0


def test_a_node_whose_disk_is_away_lives_and_is_not_ready(disk: Disk, url: str) -> None:
    """Else the kubelet would end every node of a cluster whose file server is away."""
    disk.there.clear()
    paths = ("/readyz", "/metrics", "/api/studies", "/api/studies/1.2/report")
    urls = [url + path for path in paths] * (MORE_THAN_ALL_CONNECTIONS // len(paths))
    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(lambda each: asked(each, 0.3), urls))
    assert set(statuses) <= {0, 503}
    assert asked(f"{url}/healthz", 10) == 200
    assert asked(f"{url}/readyz", 10) == 503


def test_it_is_ready_again_when_the_disk_is_back(disk: Disk, url: str) -> None:
    disk.there.clear()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: asked(f"{url}/readyz", 0.3), range(32)))
    disk.there.set()
    assert asked(f"{url}/readyz", 10) == 200
    assert asked(f"{url}/metrics", 10) == 200
