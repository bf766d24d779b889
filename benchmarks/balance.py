"""Three model servers, one of them ten times slower: is the sum of the three reached?

    python benchmarks/balance.py [--seconds 6] [--service 0.02] [--slowdown 10] [--workers 3 6]

Each server takes a set time per image and works on one at a time, so the rate of a server
alone is known by measuring it alone; the same client then uses all three. Prints one line
per number of workers: rate together, sum of the rates alone, their ratio, and how many
images the slow server got. Expected: at least 0.85 from three workers on.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Sequence

import numpy as np

from dicomnode import logs
from dicomnode.config import ServingSettings
from dicomnode.serving import ServingClient
from dicomnode.testing.model_servers import FakeModelServer

IMAGE = np.zeros((224, 224, 3), np.uint8)


def rate(servers: Sequence[FakeModelServer], *, workers: int, seconds: float) -> float:
    """Images per second of `workers` that ask without a pause."""
    client = ServingClient(ServingSettings(targets=[server.target for server in servers]))
    for _ in range(200):
        if all(server.answered for server in servers):
            break
        client.predict(IMAGE)
    counts = [0] * workers
    end = time.perf_counter() + seconds

    def work(number: int) -> None:
        while True:
            client.predict(IMAGE)
            if time.perf_counter() > end:
                return
            counts[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.close()
    return sum(counts) / seconds


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--service", type=float, default=0.02)
    parser.add_argument("--slowdown", type=float, default=10.0)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 3, 6, 12])
    options = parser.parse_args(argv)
    logs.configure(level="ERROR")
    with FakeModelServer() as one, FakeModelServer() as two, FakeModelServer() as slow:
        servers = (one, two, slow)
        for server in servers:
            server.service_seconds = options.service
        slow.service_seconds *= options.slowdown
        alone = [rate([server], workers=4, seconds=options.seconds) for server in servers]
        print("alone:", " ".join(f"{value:.1f}" for value in alone), "images/s")
        print("workers  together      sum    ratio  to the slow one")
        for workers in options.workers:
            before = slow.answered
            together = rate(servers, workers=workers, seconds=options.seconds)
            ratio = together / sum(alone)
            asked = slow.answered - before
            print(f"{workers:7d} {together:9.1f} {sum(alone):8.1f} {ratio:8.3f} {asked:6d}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
