"""The embedded model server as a child process.

The node never imports tensorflow: its own model server runs beside it, is started again
when it dies, and ends with the node because the pipe to its standard input closes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from dicomnode.logs import get_logger

log = get_logger(__name__)

_RESTART_SECONDS = (1.0, 2.0, 5.0, 15.0, 60.0)
"""Waits between restarts; a run of a minute starts the list again."""
_STABLE_SECONDS = 60.0
_STOP_SECONDS = 10.0


class EmbeddedModelServer:
    """Keeps one `dicomnode model-server` running."""

    def __init__(
        self, *, host: str, port: int, rest_port: int, model_name: str, model_base_path: Path
    ) -> None:
        self._command = [
            sys.executable,
            "-m",
            "dicomnode",
            "model-server",
            f"--host={host}",
            f"--port={port}",
            f"--rest_api_port={rest_port}",
            f"--model_name={model_name}",
            f"--model_base_path={model_base_path}",
            "--parent_pipe",
        ]
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._supervise, name="model-server", daemon=True)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._thread.start()

    @property
    def pid(self) -> int | None:
        """Of the child that runs now."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def stop(self) -> None:
        """End the child, waiting for its requests at most `_STOP_SECONDS`."""
        self._stopping.set()
        process = self._process
        if process is not None:
            process.terminate()
        if self._thread.is_alive():
            self._thread.join(_STOP_SECONDS)
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()

    def _supervise(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            started = time.monotonic()
            code = self._run_once()
            if self._stopping.is_set():
                return
            failures = 0 if time.monotonic() - started > _STABLE_SECONDS else failures + 1
            wait = _RESTART_SECONDS[min(failures, len(_RESTART_SECONDS)) - 1]
            log.error("model_server.ended", exit_code=code, restart_in_seconds=wait)
            self._stopping.wait(wait)

    def _run_once(self) -> int:
        environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ}
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=environment
        )
        log.info("model_server.started", pid=self._process.pid)
        with self._process as process:
            return process.wait()
