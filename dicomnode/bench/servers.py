"""Simulated model servers, each in a process of its own.

`python -m dicomnode.bench.servers SERVICE_SECONDS` prints its port and serves until its
standard input closes, so that it ends with whoever started it, however that ends.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

from dicomnode.errors import DicomnodeError

_STOP_SECONDS = 10.0


@contextlib.contextmanager
def simulated_servers(count: int, *, service_seconds: float) -> Iterator[list[str]]:
    """The targets of `count` servers that run while the block does."""
    command = [sys.executable, "-m", "dicomnode.bench.servers", str(service_seconds)]
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(_running(command)) for _ in range(count)]
        yield [f"127.0.0.1:{_port(process)}" for process in started]


@contextlib.contextmanager
def _running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _port(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    told = process.stdout.readline().strip()  # empty when the process ended
    if not told.isdigit():
        raise DicomnodeError("a simulated model server did not start; its error is above")
    return int(told)


def main(arguments: list[str]) -> int:
    from dicomnode.testing.model_servers import FakeModelServer  # noqa: PLC0415 - the child's alone

    with FakeModelServer(service_seconds=float(arguments[0])) as server:
        print(server.port, flush=True)  # noqa: T201 - what the parent waits for
        sys.stdin.read()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
