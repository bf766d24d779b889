"""Debian's Prometheus and node_exporter: started with files of their own, asked over HTTP."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.acceptance.node import free_ports, until
from tests.conftest import require_program
from tests.unit.monitoring import RULES, scrape_config


class Prometheus:
    """A running Prometheus."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def get(self, path: str, **parameters: str | float) -> Any:
        """`data` of an answer; a refusal fails the test with Prometheus's own words."""
        query = urllib.parse.urlencode(parameters)
        try:
            with urllib.request.urlopen(f"{self._url}{path}?{query}", timeout=20) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path} {parameters}: {error.read().decode()}") from error

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Samples of now."""
        result: list[dict[str, Any]] = self.get("/api/v1/query", query=expression)["result"]
        return result

    def query_range(
        self, expression: str, *, start: float, end: float, step: float
    ) -> list[dict[str, Any]]:
        result: list[dict[str, Any]] = self.get(
            "/api/v1/query_range", query=expression, start=start, end=end, step=step
        )["result"]
        return result

    def number(self, expression: str) -> float:
        """The only sample of an expression; 0 when there is none yet."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else 0.0

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def hurried_config(folder: Path, targets: dict[str, Sequence[str]]) -> Path:
    """The shipped scrape config and rules, with other targets and every interval a second."""
    config = scrape_config("prometheus.yml")
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = ["rules/*.yml"]
    for job in config["scrape_configs"]:
        job["static_configs"] = [{"targets": list(targets[job["job_name"]])}]
    (folder / "rules").mkdir(parents=True)
    for path in RULES:
        document = yaml.safe_load(path.read_text())
        for group in document["groups"]:
            group.pop("interval", None)
        (folder / "rules" / path.name).write_text(yaml.safe_dump(document))
    written = folder / "prometheus.yml"
    written.write_text(yaml.safe_dump(config))
    return written


@contextmanager
def running_prometheus(config: Path, *, port: int, data: Path) -> Iterator[Prometheus]:
    """Prometheus on a port of loopback, ended with the block."""
    command = [
        require_program("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        "--storage.tsdb.retention.time=45d",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with _running(command, config.parent / "prometheus.log"):
        prometheus = Prometheus(port)
        until(prometheus.ready, seconds=30, what="Prometheus is ready")
        yield prometheus


@contextmanager
def running_exporter(folder: Path) -> Iterator[str]:
    """node_exporter that reads `folder`; its address."""
    (port,) = free_ports(1)
    command = [
        require_program("prometheus-node-exporter"),
        f"--web.listen-address=127.0.0.1:{port}",
        "--collector.disable-defaults",
        "--collector.textfile",
        f"--collector.textfile.directory={folder}",
        "--collector.time",
    ]
    with _running(command, folder / "exporter.log"):
        yield f"127.0.0.1:{port}"


@contextmanager
def _running(command: list[str], log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
