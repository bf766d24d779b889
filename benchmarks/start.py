"""Seconds from the start of the process to /readyz, with an external model server.

`python -m benchmarks.start`
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from dicomnode.testing.model_servers import FakeModelServer
from tests.acceptance.node import RunningNode

RUNS = 5


def main() -> int:
    seconds = []
    with FakeModelServer() as server:
        for _ in range(RUNS):
            with tempfile.TemporaryDirectory(prefix="start-") as folder:
                node = RunningNode(Path(folder), targets=[server.target], pacs_port=None)
                started = time.perf_counter()
                with node:
                    node.wait_ready()
                    seconds.append(time.perf_counter() - started)
    spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
    print(f"ready after {statistics.median(seconds):.2f} s (median of {RUNS}, {spread}); at most 3")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
