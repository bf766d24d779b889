"""Callers of the serving client, as the node's workers are."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from dicomnode.bench.measured import Measured
from dicomnode.config import ServingSettings
from dicomnode.errors import DicomnodeError
from dicomnode.serving import ServingClient

_PATIENCE_SECONDS = 120.0
_WARM_UP = 200


def measure(targets: Sequence[str], *, studies: int, concurrency: int) -> Measured:
    """`studies` requests by `concurrency` callers. Raises `DicomnodeError` when one fails."""
    image = np.random.default_rng(20).integers(0, 256, (224, 224, 3), np.uint8)
    client = ServingClient(
        ServingSettings(
            engine="external",
            targets=list(targets),
            timeout_seconds=_PATIENCE_SECONDS,
            try_timeout_seconds=_PATIENCE_SECONDS,
        )
    )
    answered: Counter[str] = Counter()
    try:
        _ask_each_once(client, image, len(targets))

        def ask(_: int) -> tuple[float, str]:
            started = time.perf_counter()
            backend = client.predict(image).backend
            return time.perf_counter() - started, backend

        with ThreadPoolExecutor(concurrency, thread_name_prefix="bench") as callers:
            started = time.perf_counter()
            told = list(callers.map(ask, range(studies)))
            seconds = time.perf_counter() - started
    finally:
        client.close()
    answered.update(backend for _, backend in told)
    return Measured(
        backends=len(targets),
        studies=studies,
        seconds=seconds,
        latencies=tuple(sorted(latency for latency, _ in told)),
        shares=tuple(count / studies for _, count in sorted(answered.items())),
    )


def _ask_each_once(client: ServingClient, image: np.ndarray, backends: int) -> None:
    """The first request to a backend also opens its channel and asks for its signatures."""
    seen = set()
    for _ in range(_WARM_UP):
        seen.add(client.predict(image).backend)
        if len(seen) == backends:
            return
    raise DicomnodeError(
        f"only {len(seen)} of {backends} model servers were asked in {_WARM_UP} requests"
    )
