"""Functions of this process inside a network namespace: each runs in a thread that entered it."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from tests.conftest import require_program

T = TypeVar("T")
_CLONE_NEWNET = 0x40000000


def require_namespaces() -> None:
    """Skip the test where there can be none: they need root and a kernel that has them."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    tried = subprocess.run(
        [require_program("unshare"), "--net", "--mount", "--pid", "--fork", "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode != 0:
        pytest.skip(f"no network namespaces here: {tried.stderr.strip()}")


def enter(namespace: str) -> None:
    """Move the calling thread, and it alone, into the network namespace of that name."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/run/netns", namespace).open("rb") as file:
        if libc.setns(file.fileno(), _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), namespace)


def pool(namespace: str, threads: int, name: str) -> ThreadPoolExecutor:
    """Threads whose sockets are those of the namespace."""
    return ThreadPoolExecutor(
        threads, thread_name_prefix=name, initializer=enter, initargs=(namespace,)
    )


def inside(namespace: str, function: Callable[[], T]) -> T:
    """The answer of a function that ran there."""
    with pool(namespace, 1, "inside") as threads:
        return threads.submit(function).result()
