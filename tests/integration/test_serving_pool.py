"""Who gets a place at a backend: requests in the order of their coming."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from dicomnode.config import ServingSettings
from dicomnode.metrics import Metrics
from dicomnode.serving.balancer import Verdict
from dicomnode.serving.pool import Lease, Pool
from dicomnode.serving.resolver import getaddrinfo
from dicomnode.testing.model_servers import FakeModelServer

WAITERS = 6
SECONDS = 20.0


@pytest.fixture
def pool() -> Iterator[Pool]:
    """One model server that takes one request at a time."""
    with FakeModelServer() as server:
        settings = ServingSettings(targets=[server.target], maximum_in_flight=1)
        made = Pool(
            settings,
            metrics=Metrics(CollectorRegistry()),
            lookup=getaddrinfo,
            clock=time.monotonic,
        )
        yield made
        made.close()


def taken(pool: Pool) -> Lease:
    lease = pool.acquire(time.monotonic() + SECONDS, avoid=())
    assert lease is not None
    return lease


def test_places_are_given_in_the_order_of_asking(pool: Pool) -> None:
    """Else a burst of studies leaves some request waiting until its time is up."""
    first = taken(pool)
    served: list[int] = []

    def ask(number: int) -> None:
        lease = taken(pool)
        served.append(number)
        pool.release(lease, Verdict.ACCEPT)

    threads = []
    for number in range(WAITERS):
        threads.append(threading.Thread(target=ask, args=(number,)))
        threads[-1].start()
        until = time.monotonic() + SECONDS
        while f"{number + 1} waiting" not in pool.describe() and time.monotonic() < until:
            threading.Event().wait(0.002)
    pool.release(first, Verdict.ACCEPT)
    taken(pool)  # whoever gives a place back and asks again is the last in the row
    assert served == list(range(WAITERS))
    for thread in threads:
        thread.join(SECONDS)
