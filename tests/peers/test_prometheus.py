"""Debian's Prometheus with the shipped files, beside a real node and a real model server.

Every expression of every panel and rule is asked through its HTTP API while there is work.
"""

from __future__ import annotations

import math
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from dicomnode.dimse import send_files
from dicomnode.errors import DestinationUnavailable
from dicomnode.testing.pacs import ReceivingPacs
from dicomnode.testing.phantoms import part10_bytes, phantom_dataset
from tests.acceptance.node import RunningNode, free_ports, until
from tests.conftest import require_program
from tests.peers.prometheus import (
    Prometheus,
    hurried_config,
    running_exporter,
    running_prometheus,
)
from tests.unit.monitoring import (
    MONITORING,
    Expression,
    panel_expressions,
    rule_expressions,
)

pytestmark = pytest.mark.peer("prometheus")

WAVES = 3
REFUSED_BY_PACS = "PHANTOM-REFUSED"
HISTORY = "model_version_le:dicomnode_prediction_probability_bucket:increase5m"
VARIABLES = {"$__rate_interval": "20s", "$__interval": "30s", "$instance": ".*"}


@dataclass
class Scene:
    """A Prometheus that has watched a node at work."""

    prometheus: Prometheus
    started: float
    ended: float

    def samples(self, expression: Expression) -> list[float]:
        """Every finite value that a panel would draw of the time of the test."""
        text = expression.text
        for name, value in VARIABLES.items():
            text = text.replace(name, value)
        if expression.instant:
            points = [series["value"] for series in self.prometheus.query(text)]
        else:
            series = self.prometheus.query_range(text, start=self.started, end=self.ended, step=1)
            points = [point for one in series for point in one["values"]]
        return [float(value) for _, value in points if math.isfinite(float(value))]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Phantoms in waves: most are reported, one kind is not evaluated, one report is refused;
    one of two model servers is away; the last retraining failed."""
    require_program("promtool")
    folder = tmp_path_factory.mktemp("monitoring")
    pacs = ReceivingPacs(answer=lambda ds: 0xC000 if REFUSED_BY_PACS in ds.PatientID else 0)
    pacs.start()
    grpc_port, rest_port, nobody, prometheus_port = free_ports(4)
    with _model_server(folder, grpc_port, rest_port) as server:
        textfiles = folder / "textfiles"
        textfiles.mkdir()
        for code in (0, 1):
            retrain = [str(MONITORING / "retrain_textfile.py"), str(textfiles / "retrain.prom")]
            subprocess.run([*retrain, "--", "sh", "-c", f"exit {code}"], check=False, timeout=30)
        targets = [f"127.0.0.1:{grpc_port}", f"127.0.0.1:{nobody}"]
        (folder / "node").mkdir()
        node = RunningNode(folder / "node", targets=targets, pacs_port=pacs.port)
        with node, running_exporter(textfiles) as exporter:
            until(lambda: _listens(rest_port, server), seconds=60, what="the model server listens")
            node.wait_ready(60)
            config = hurried_config(
                folder / "prometheus",
                {
                    "prometheus": [f"127.0.0.1:{prometheus_port}"],
                    "dicomnode": [f"127.0.0.1:{node.web_port}"],
                    "model-server": [f"127.0.0.1:{rest_port}"],
                    "machine": [exporter],
                },
            )
            data = folder / "prometheus" / "data"
            _write_history(folder / "history.om", data)
            with running_prometheus(config, port=prometheus_port, data=data) as prometheus:
                started = time.time()
                _work(node, prometheus, pacs, folder)
                yield Scene(prometheus=prometheus, started=started, ended=time.time() + 1)
    pacs.stop()


def _model_server(folder: Path, grpc_port: int, rest_port: int) -> Any:
    base = folder / "served" / "covid19"
    base.mkdir(parents=True)
    # in a process of its own: tensorflow stays out of this one
    code = (
        "import sys, pathlib; from dicomnode.testing.saved_models import write_tiny_version; "
        "write_tiny_version(pathlib.Path(sys.argv[1]), 1)"
    )
    subprocess.run([sys.executable, "-c", code, str(base)], check=True, timeout=120)
    return _ending(
        [
            sys.executable,
            "-m",
            "dicomnode",
            "model-server",
            f"--port={grpc_port}",
            f"--rest_api_port={rest_port}",
            "--model_name=covid19",
            f"--model_base_path={base}",
        ],
        folder / "model-server.log",
    )


class _ending:  # noqa: N801 reads as a verb where it is used
    """A child process that ends with the block."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._command, self.log = command, log

    def __enter__(self) -> subprocess.Popen[bytes]:
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(self._command, stdout=output, stderr=output)
        return self.process

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(30)


def _listens(port: int, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "the model server ended"
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _write_history(path: Path, data: Path) -> None:
    """Two days ago version 1 answered 200 images, evenly spread, in six hours."""
    bounds = [f"{step / 20}" for step in range(1, 21)] + ["+Inf"]
    first = int(time.time()) - 2 * 86400
    lines = [f"# TYPE {HISTORY} gauge"]
    for bound in bounds:
        share = 1.0 if bound == "+Inf" else float(bound)
        for hour in range(6):
            labels = f'model_version="1",le="{bound}"'
            lines.append(f"{HISTORY}{{{labels}}} {share * 200 / 6} {first + hour * 3600}")
    path.write_text("\n".join([*lines, "# EOF", ""]))
    command = [require_program("promtool"), "tsdb", "create-blocks-from", "openmetrics"]
    subprocess.run([*command, "--quiet", str(path), str(data)], check=True, timeout=60)


def _work(node: RunningNode, prometheus: Prometheus, pacs: ReceivingPacs, folder: Path) -> None:
    """In waves, each seen by Prometheus before the next: a rate needs two samples."""
    for wave in range(WAVES):
        paths = [_written(folder, dataset) for dataset in _images(wave)]
        assert _sent(node, paths, calling_ae_title="XRAY1") == {0}
        with pytest.raises(DestinationUnavailable, match="calling AE title not recognized"):
            _sent(node, paths[:1], calling_ae_title="STRANGER")
        _wait_until_seen(prometheus, sent=(wave + 1) * len(paths), refused=wave + 1)
    until(
        lambda: prometheus.query("model_version:dicomnode_prediction_probability:drift_by_chance"),
        seconds=20,
        what="there are enough predictions to tell a drift",
    )


def _wait_until_seen(prometheus: Prometheus, *, sent: int, refused: int) -> None:
    wanted = {
        "sum(dicomnode_store_duration_seconds_count)": sent,
        "sum(dicomnode_turnaround_seconds_count)": sent - refused,
        'max(dicomnode_jobs{state="failed"})': 2 * refused,  # report and heatmap
    }
    until(
        lambda: all(prometheus.number(text) == value for text, value in wanted.items()),
        seconds=30,
        what=f"{sent} images were reported and scraped",
    )


def _sent(node: RunningNode, paths: list[Path], *, calling_ae_title: str) -> set[int | None]:
    """The statuses that were answered; None where no association came about."""
    results = send_files(
        "127.0.0.1",
        node.port,
        paths,
        called_ae_title="DICOMNODE",
        calling_ae_title=calling_ae_title,
    )
    return {result.status for result in results}


def _images(wave: int) -> Iterator[Dataset]:
    for number in range(3):
        yield phantom_dataset(100 * wave + number, number % 2 == 0, rows=320, columns=320)
    knee = phantom_dataset(100 * wave + 10, False, rows=320, columns=320)
    knee.BodyPartExamined = "KNEE"
    yield knee
    refused = phantom_dataset(100 * wave + 11, True, rows=320, columns=320)
    refused.PatientID = f"{REFUSED_BY_PACS}-{wave}"
    yield refused


def _written(folder: Path, dataset: Dataset) -> Path:
    path = folder / f"{dataset.SOPInstanceUID}.dcm"
    path.write_bytes(part10_bytes(dataset))
    return path


def test_every_expression_of_every_panel_returns_data(scene: Scene) -> None:
    silent = {
        expression.text: expression.place
        for expression in panel_expressions()
        if not scene.samples(expression)
    }
    assert silent == {}


def test_every_rule_is_evaluated_without_an_error(scene: Scene) -> None:
    until(
        lambda: all(rule["health"] != "unknown" for rule in _live_rules(scene)),
        seconds=10,
        what="every rule was evaluated",
    )
    troubles = {rule["name"]: rule.get("lastError") for rule in _live_rules(scene)}
    assert {name: error for name, error in troubles.items() if error} == {}
    assert len(troubles) == len(rule_expressions())


def test_every_recording_rule_records_something(scene: Scene) -> None:
    recorded = {rule["name"] for rule in _live_rules(scene) if rule["type"] == "recording"}
    assert recorded
    assert {name for name in recorded if not scene.prometheus.query(name)} == set()


def _live_rules(scene: Scene) -> list[dict[str, Any]]:
    groups = scene.prometheus.get("/api/v1/rules")["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_the_alerts_that_this_scene_calls_for_fire_and_no_others(scene: Scene) -> None:
    """A report that the PACS refuses, a retraining that failed; a model server that is away is
    given five minutes. What each of the others needs is in the rules' own tests."""
    active = scene.prometheus.get("/api/v1/alerts")["alerts"]
    states = {alert["labels"]["alertname"]: alert["state"] for alert in active}
    firing = {name for name, state in states.items() if state == "firing"}
    assert firing == {"DicomnodeDeadLetters", "DicomnodeRetrainFailed"}
    assert states["DicomnodeBackendEjected"] == "pending"


def test_every_target_is_up(scene: Scene) -> None:
    assert scene.prometheus.query("up == 0") == []
    assert {sample["metric"]["job"] for sample in scene.prometheus.query("up")} == {
        "prometheus",
        "dicomnode",
        "model-server",
        "machine",
    }
