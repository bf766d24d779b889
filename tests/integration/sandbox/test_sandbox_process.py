"""What only a child process has: crashes, hangs, limits, idleness, orphans.

A named pipe stands for an image that takes as long as the test likes: the child blocks in
opening it, and opening the other end tells that it got there.
"""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import RLELossless

from dicomnode.errors import SandboxUnavailable, UndecodableImage
from dicomnode.findings import PreparedImage
from dicomnode.sandbox import SandboxPreparer

PROFILE = "unit-rgb-224/1"
PATIENCE = 30.0

Film = Callable[..., Path]


class Stuck:
    """A child that is at a named pipe, and the call that waits for it."""

    def __init__(self, preparer: SandboxPreparer, pipe: Path, pool: ThreadPoolExecutor) -> None:
        self.future: Future[Any] = pool.submit(preparer.prepare, pipe, profile=PROFILE)
        self.writing = os.open(pipe, os.O_WRONLY)  # returns once the child has opened it
        (self.pid,) = preparer.pids()


@contextmanager
def stuck(preparer: SandboxPreparer, folder: Path) -> Iterator[Stuck]:
    pipe = folder / "pipe.dcm"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        child = Stuck(preparer, pipe, pool)
        try:
            yield child
        finally:
            os.close(child.writing)


@contextmanager
def one_slot(**settings: Any) -> Iterator[SandboxPreparer]:
    preparer = SandboxPreparer(slots=1, **settings)
    try:
        yield preparer
    finally:
        preparer.close()


def test_nothing_is_started_before_the_first_image() -> None:
    with one_slot() as preparer:
        assert preparer.pids() == []


def test_a_child_is_reused(film: Film) -> None:
    path = film()
    with one_slot() as preparer:
        preparer.prepare(path, profile=PROFILE)
        first = preparer.pids()
        preparer.prepare(path, profile=PROFILE)
        assert preparer.pids() == first


def test_an_image_that_takes_too_long_is_undecodable_and_its_child_is_gone(
    film: Film, tmp_path: Path
) -> None:
    with one_slot(timeout_seconds=0.5) as preparer, stuck(preparer, tmp_path) as child:
        with pytest.raises(UndecodableImage, match=r"not done after 0\.5 s"):
            child.future.result(PATIENCE)
        assert not psutil.pid_exists(child.pid)
        assert isinstance(preparer.prepare(film(), profile=PROFILE), PreparedImage)


def test_a_crash_costs_one_image_and_names_the_signal(film: Film, tmp_path: Path) -> None:
    with one_slot() as preparer, stuck(preparer, tmp_path) as child:
        os.kill(child.pid, signal.SIGSEGV)
        with pytest.raises(UndecodableImage, match="SIGSEGV"):
            child.future.result(PATIENCE)
        assert isinstance(preparer.prepare(film(), profile=PROFILE), PreparedImage)
        assert preparer.pids() != [child.pid]


def test_a_child_killed_from_outside_costs_no_image(film: Film, tmp_path: Path) -> None:
    """The kernel's out-of-memory killer says nothing about the image: it is tried again."""
    with one_slot() as preparer, stuck(preparer, tmp_path) as child:
        film().replace(tmp_path / "pipe.dcm")  # what the next child will find there
        os.kill(child.pid, signal.SIGKILL)
        assert isinstance(child.future.result(PATIENCE), PreparedImage)
        assert preparer.pids() != [child.pid]


def test_an_image_that_needs_more_memory_than_allowed_is_undecodable_and_named(film: Film) -> None:
    path = film()
    uid = dcmread(path, stop_before_pixels=True).SOPInstanceUID
    enlarge(path, 9000)
    with one_slot(memory_bytes=330_000_000) as preparer:
        with pytest.raises(UndecodableImage, match=uid):
            preparer.prepare(path, profile=PROFILE)
        assert isinstance(preparer.prepare(film("small.dcm"), profile=PROFILE), PreparedImage)


def enlarge(path: Path, side: int) -> None:
    """Make the file a blank RLE image of side x side pixels of 16 bits: small, and huge."""
    ds = dcmread(path)
    ds.Rows = ds.Columns = side
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    segment = b"\x81\x00" * (-(-side * side // 128) + 1)
    header = struct.pack("<16I", 2, 64, 64 + len(segment), *([0] * 13))
    ds.PixelData = encapsulate([header + segment + segment])
    ds["PixelData"].VR = "OB"
    ds.file_meta.TransferSyntaxUID = RLELossless
    ds.save_as(path)


def test_an_idle_child_ends_and_the_next_image_starts_another(film: Film) -> None:
    path = film()
    with one_slot(idle_seconds=0.1) as preparer:
        preparer.prepare(path, profile=PROFILE)
        (pid,) = preparer.pids()
        wait_until(lambda: preparer.pids() == [])
        assert isinstance(preparer.prepare(path, profile=PROFILE), PreparedImage)
        assert preparer.pids() != [pid]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        threading.Event().wait(0.02)


def test_a_killed_node_leaves_no_orphan(film: Film) -> None:
    program = (
        "import sys, time, pathlib\n"
        "from dicomnode.sandbox import SandboxPreparer\n"
        "preparer = SandboxPreparer(slots=1, idle_seconds=600)\n"
        f"preparer.prepare(pathlib.Path(sys.argv[1]), profile={PROFILE!r})\n"
        "print(*preparer.pids(), flush=True)\n"
        "time.sleep(600)\n"
    )
    node = subprocess.Popen(
        [sys.executable, "-c", program, str(film())], stdout=subprocess.PIPE, text=True
    )
    assert node.stdout is not None
    with node:
        child = psutil.Process(int(node.stdout.readline()))
        node.kill()
        node.wait(PATIENCE)
        child.wait(PATIENCE)
    assert not child.is_running()


def test_several_threads_share_the_slots(film: Film) -> None:
    path = film()
    with SandboxPreparer(slots=2) as preparer, ThreadPoolExecutor(6) as pool:
        outcomes = [pool.submit(preparer.prepare, path, profile=PROFILE) for _ in range(18)]
        assert all(isinstance(one.result(PATIENCE), PreparedImage) for one in outcomes)
        assert 1 <= len(preparer.pids()) <= 2


def test_a_caller_waits_for_a_free_slot_and_not_for_ever(film: Film, tmp_path: Path) -> None:
    path = film()
    with (
        one_slot(wait_seconds=0.05) as preparer,
        stuck(preparer, tmp_path),
        pytest.raises(SandboxUnavailable, match="all 1 decoder processes were busy"),
    ):
        preparer.prepare(path, profile=PROFILE)


def test_closing_gives_a_stuck_image_back_to_the_queue(tmp_path: Path) -> None:
    """Not its fault: `SandboxUnavailable` is retried, `UndecodableImage` would be final."""
    with one_slot() as preparer, stuck(preparer, tmp_path) as child:
        preparer.close()
        with pytest.raises(SandboxUnavailable, match="stopping"):
            child.future.result(PATIENCE)
        assert not psutil.pid_exists(child.pid)
        with pytest.raises(SandboxUnavailable, match="stopping"):
            preparer.prepare(tmp_path / "pipe.dcm", profile=PROFILE)


def test_a_child_that_cannot_start_is_an_outage_and_says_why(film: Film) -> None:
    path = film()
    with one_slot(memory_bytes=40_000_000) as preparer:
        with pytest.raises(SandboxUnavailable, match="did not start"):
            preparer.prepare(path, profile=PROFILE)
        assert preparer.pids() == []


def test_the_child_sees_no_setting_of_the_node(film: Film, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DICOMNODE_STORAGE__DATABASE_URL", "postgresql://secret")
    with one_slot() as preparer:
        preparer.prepare(film(), profile=PROFILE)
        (pid,) = preparer.pids()
        assert not [name for name in psutil.Process(pid).environ() if name.startswith("DICOMNODE")]


def test_a_child_is_small_and_single_threaded(film: Film) -> None:
    with one_slot() as preparer:
        preparer.prepare(film(), profile=PROFILE)
        child = psutil.Process(preparer.pids()[0])
        assert child.num_threads() == 1
        assert child.memory_info().rss < 120_000_000
        assert child.rlimit(psutil.RLIMIT_CORE) == (0, 0)
