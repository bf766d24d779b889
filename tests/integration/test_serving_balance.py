"""A slow replica costs its own share and no more: the benchmark's run, in short."""

from __future__ import annotations

from benchmarks.balance import rate
from dicomnode.testing.model_servers import FakeModelServer


def test_one_of_three_slowed_ten_times_does_not_hold_the_others_back() -> None:
    """A ratio of rates that were measured in one run, so a slow machine slows both."""
    with FakeModelServer() as one, FakeModelServer() as two, FakeModelServer() as slow:
        servers = (one, two, slow)
        for server in servers:
            server.service_seconds = 0.03
        slow.service_seconds = 0.3
        alone = sum(rate([server], workers=4, seconds=1.2) for server in servers)
        together = rate(servers, workers=6, seconds=1.5)
    assert together >= 0.85 * alone
