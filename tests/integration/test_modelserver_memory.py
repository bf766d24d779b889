"""Memory stays flat when versions come and go: the benchmark's run, in short."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "reload_memory.py"


def test_reloads_do_not_leak() -> None:
    """In a process of its own, because other tests leave memory behind in this one."""
    pytest.importorskip("tensorflow", reason="needs the `model` extra")
    command = [sys.executable, str(BENCHMARK), "--reloads=15", "--ballast=30000000"]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=300, cwd=BENCHMARK.parents[1]
    )
    assert done.returncode == 0, done.stdout + done.stderr
