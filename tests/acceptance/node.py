"""The real command as a subprocess: started, asked, stopped, killed and started again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from dicomnode.config import StorageSettings
from dicomnode.storage import Storage, open_storage
from dicomnode.testing.saved_models import tiny_card

SETTINGS = """
[dimse]
port = {dimse_port}
storage_sop_classes = {sop_classes}
[[dimse.peers]]
name = "xray1"
ae_title = "XRAY1"
[storage]
root = "var"
minimum_free_bytes = {minimum_free_bytes}
[study]
idle_seconds = {idle_seconds}
[serving]
engine = "external"
targets = {targets}
model_name = "covid19"
model_base_path = "models/covid19"
timeout_seconds = 5.0
[web]
port = {web_port}
[retry]
base_seconds = 0.2
cap_seconds = 1.0
{destinations}
"""

DESTINATION = """
[[destinations]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = {port}
timeout_seconds = 5.0
"""


def free_ports(count: int) -> list[int]:
    """Ports of loopback that were free a moment ago."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(listener.getsockname()[1]) for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def until(satisfied: Callable[[], Any], *, seconds: float, what: str) -> Any:
    """Ask another process until it says so; its answer, or a failure naming `what`."""
    end = time.monotonic() + seconds
    while not (answer := satisfied()):
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.02)
    return answer


class RunningNode:
    """A node with its own folder and ports."""

    def __init__(
        self,
        folder: Path,
        *,
        targets: list[str],
        pacs_port: int | None,
        idle_seconds: float = 0.2,
        minimum_free_bytes: int = 1_000_000,
        versions: tuple[int, ...] = (1,),
        sop_classes: tuple[str, ...] = (),
    ) -> None:
        self.folder = folder
        self.port, self.web_port = free_ports(2)
        self.config = folder / "node.toml"
        self.log = folder / "node.log"
        self.config.write_text(
            SETTINGS.format(
                dimse_port=self.port,
                web_port=self.web_port,
                targets=json.dumps(targets),
                sop_classes=json.dumps(sop_classes),
                idle_seconds=idle_seconds,
                minimum_free_bytes=minimum_free_bytes,
                destinations="" if pacs_port is None else DESTINATION.format(port=pacs_port),
            )
        )
        for version in versions:
            self.publish_card(version)
        self.process: subprocess.Popen[bytes] | None = None

    def publish_card(self, version: int) -> None:
        assets = self.folder / "models" / "covid19" / str(version) / "assets.extra"
        assets.mkdir(parents=True, exist_ok=True)
        (assets / "model_card.json").write_text(tiny_card("covid19", version).to_json())

    def __enter__(self) -> RunningNode:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dicomnode", "serve", "--config", str(self.config)],
                stdout=log,
                stderr=log,
                env={**os.environ, "DICOMNODE_LOG__FORMAT": "json"},
            )
        until(self._listens, seconds=30, what="the node listens")

    def _listens(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-2000:]
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """kill -9, as a power cut would."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(10)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(40)

    def get(self, path: str) -> tuple[int, Any]:
        """The HTTP status and the decoded answer (text for /metrics)."""
        request = f"http://127.0.0.1:{self.web_port}{path}"
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                status, body = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, body = error.code, error.read()
        except OSError:
            return 0, None
        text = body.decode()
        return status, text if path == "/metrics" else json.loads(text)

    def ready(self) -> bool:
        return self.get("/readyz")[0] == 200

    def wait_ready(self, seconds: float = 30) -> None:
        until(self.ready, seconds=seconds, what="the node is ready")

    def resident_bytes(self) -> int:
        """Of the node's process and all its descendants."""
        assert self.process is not None
        root = psutil.Process(self.process.pid)
        return sum(p.memory_info().rss for p in [root, *root.children(recursive=True)])

    def events(self) -> list[dict[str, Any]]:
        """Every JSON event in the log."""
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def opened(self) -> Storage:
        """The node's store, beside the node. Close it."""
        return open_storage(StorageSettings(root=self.folder / "var"))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Another `dicomnode` command on the same settings."""
        return subprocess.run(
            [sys.executable, "-m", "dicomnode", *arguments, "--config", str(self.config)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
