"""Metrics under the names that TensorFlow Serving's Prometheus page has."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import Metric

from dicomnode.modelserver.models import Models

_BUCKETS = tuple(10.0 * 1.8**step for step in range(28))
"""Microseconds, as TensorFlow Serving's ExponentialBuckets(10, 1.8, ...)."""


class ServerMetrics:
    """Requests by model and status, and their latency."""

    def __init__(self, models: Models) -> None:
        self.registry = CollectorRegistry()
        self._models = models
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], int] = {}
        self._latency = Histogram(
            ":tensorflow:serving:request_latency",
            "Microseconds from a request to its answer",
            ["model_name", "API", "entrypoint"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.registry.register(self)

    def observe(
        self, *, model: str, api: str, entrypoint: str, status: str, seconds: float
    ) -> None:
        """One request. A model that is not served is counted as `unknown`, so that the
        names which clients invent make no new time series."""
        name = model if self._models.get(model) is not None else "unknown"
        with self._lock:
            self._counts[name, status] = self._counts.get((name, status), 0) + 1
        self._latency.labels(name, api, entrypoint).observe(seconds * 1e6)

    def collect(self) -> Iterator[Metric]:
        """TensorFlow Serving's counter has no `_total`, which prometheus_client would add."""
        counter = Metric(":tensorflow:serving:request_count", "Requests by status", "unknown")
        with self._lock:
            counts = dict(self._counts)
        for (model, status), count in sorted(counts.items()):
            counter.add_sample(counter.name, {"model_name": model, "status": status}, count)
        yield counter

    def page(self) -> bytes:
        return bytes(generate_latest(self.registry))


def status_name(code: Any) -> str:
    """`INVALID_ARGUMENT` for a grpc.StatusCode."""
    return str(code.name)
