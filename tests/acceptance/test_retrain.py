"""The loop that closes: studies and labels of a running node become its next version."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from dicomnode.config import ServingSettings
from dicomnode.errors import DicomnodeError
from dicomnode.serving import ServingClient
from dicomnode.testing.pacs import ReceivingPacs
from dicomnode.testing.phantoms import part10_bytes, phantom_dataset
from tests.acceptance.conftest import push
from tests.acceptance.node import RunningNode, free_ports, until
from trainer import networks, registry
from trainer.export import export

pytest.importorskip("tensorflow", reason="needs the `model` extra")

from dicomnode.testing.saved_models import tiny_card

PER_CLASS = 50
SETTINGS = """
[data]
node = "node.toml"
[fit]
out = "models/covid19"
network = "tiny"
epochs = {epochs}
seed = 3
test_fraction = 0.3
{more}
[gate]
minimum_patients = 12
minimum_positive_patients = 4
minimum_negative_patients = 4
sensitivity_floor = 0.4
specificity_floor = 0.2
within_minimum_films = 4
source_minimum_films = 12
margin = 0.1
resamples = 500
[retrain]
runs = "runs"
"""


class Asker:
    """Somebody who wants a probability all the time, with the client of the node."""

    def __init__(self, port: int) -> None:
        self.versions: list[int] = []
        self.failures: list[str] = []
        self._client = ServingClient(ServingSettings(targets=[f"127.0.0.1:{port}"]))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="asker")

    def __enter__(self) -> Asker:
        until(self._client.ready, seconds=120, what="the model server answers")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._client.close()

    def wait_for(self, version: int) -> None:
        until(lambda: self.versions[-1:] == [version], seconds=60, what=f"version {version}")

    def _run(self) -> None:
        film = np.zeros((224, 224, 3), np.uint8)
        while not self._stop.wait(0.1):
            try:
                self.versions.append(self._client.predict(film).model_version)
            except DicomnodeError as error:
                self.failures.append(str(error))


def publish_untrained(base: Path) -> None:
    """Version 1: a network as it is before it has learned anything."""
    network = networks.build("tiny", weights="random", classes=2, seed=1)
    film = np.zeros((1, 224, 224, 3), np.uint8)
    with registry.staging(base) as folder:
        export(network, folder, tiny_card("covid19", 1), film)
        assert registry.publish(folder, base) == 1


@contextlib.contextmanager
def model_server(base: Path) -> Iterator[int]:
    """`dicomnode model-server` on a free port, looking at its folder all the time."""
    (port,) = free_ports(1)
    command = [
        *(sys.executable, "-m", "dicomnode", "model-server", f"--port={port}"),
        *("--model_name=covid19", f"--model_base_path={base}"),
        "--file_system_poll_wait_seconds=0.1",
    ]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        try:
            yield port
        finally:
            server.terminate()


def trainer(*arguments: str, expected: int = 0) -> tuple[dict[str, Any], str]:
    """The JSON that the command printed, and its standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "trainer", *arguments, "--json"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == expected, done.stdout + done.stderr
    return json.loads(done.stdout), done.stderr


def pushed(node: RunningNode, folder: Path) -> Path:
    """Phantom studies sent to the node; the CSV with their labels."""
    paths, rows = [], []
    for number in range(2 * PER_CLASS):
        positive = number % 2 == 0
        dataset = phantom_dataset(40_000 + number, positive, rows=256, columns=256)
        paths.append(folder / f"{number}.dcm")
        paths[-1].write_bytes(part10_bytes(dataset))
        rows.append((dataset.StudyInstanceUID, "positive" if positive else "negative"))
    assert set(push(node, *paths)) == {0x0000}
    labels = folder / "labels.csv"
    with labels.open("w", newline="") as stream:
        csv.writer(stream).writerows([("study_instance_uid", "label"), *rows])
    return labels


def report_at_once(node: RunningNode) -> None:
    """From now on; a hundred reports that nobody looks at would be most of the test's time."""
    assert node.stop() == 0
    text = node.config.read_text()
    node.config.write_text(text.replace("idle_seconds = 3600.0", "idle_seconds = 0.2"))
    node.start()
    node.wait_ready()


def next_report(node: RunningNode, pacs: ReceivingPacs, folder: Path, seed: int) -> Dataset:
    """The SR about a study that is pushed now."""
    dataset = phantom_dataset(seed, True, rows=256, columns=256)
    path = folder / f"late-{seed}.dcm"
    path.write_bytes(part10_bytes(dataset))
    assert push(node, path) == [0x0000]
    found: list[Dataset] = []

    def has_come(pacs: ReceivingPacs) -> bool:
        found[:] = [ds for ds in pacs.reports if ds.StudyInstanceUID == dataset.StudyInstanceUID]
        return bool(found)

    assert pacs.wait_for(has_come, 60), node.log.read_text()[-2000:]
    return found[0]


def test_what_the_node_collected_becomes_the_version_that_reports_name_and_back(
    tmp_path: Path, pacs: ReceivingPacs
) -> None:
    """Push, label, retrain, report, refuse a worse candidate, roll back: no request fails."""
    base = tmp_path / "models" / "covid19"
    publish_untrained(base)
    config = tmp_path / "retrain.toml"
    config.write_text(SETTINGS.format(epochs=10, more=""))
    with (
        model_server(base) as port,
        Asker(port) as asker,
        RunningNode(
            tmp_path,
            targets=[f"127.0.0.1:{port}"],
            pacs_port=pacs.port,
            idle_seconds=3600.0,
            versions=(),
        ) as node,
    ):
        node.wait_ready()
        labels = pushed(node, tmp_path)
        imported = node.run(
            "labels", "import", str(labels), "--source=test", "--author=test",
            "--new-class=positive", "--new-class=negative",
        )  # fmt: skip
        assert imported.returncode == 0, imported.stderr
        report_at_once(node)
        before = next_report(node, pacs, tmp_path, 50_001)

        seen, _ = trainer("retrain", f"--config={config}", "--dry-run")
        assert (seen["films"], seen["missing"]) == (2 * PER_CLASS, [])

        told, _ = trainer("retrain", f"--config={config}")
        assert (told["outcome"], told["version"], told["compared_with"]) == ("published", 2, 1)
        asker.wait_for(2)
        after = next_report(node, pacs, tmp_path, 50_002)
        uids = [registry.read_card(base, version).device_uid for version in (1, 2)]
        assert uids[0] in str(before)
        assert uids[1] not in str(before)
        assert uids[1] in str(after)
        assert uids[0] not in str(after)
        assert registry.read_card(base, 2).parent_version == 1
        assert Path(told["folder"], "report.html").is_file()

        nothing, error = trainer("retrain", f"--config={config}", expected=3)
        assert nothing["outcome"] == "nothing_new"
        assert error.startswith("nothing_to_do: 0 films are new, gone or relabelled")

        config.write_text(SETTINGS.format(epochs=1, more="learning_rate = 1e-7"))
        refused, error = trainer("retrain", f"--config={config}", "--force", expected=1)
        assert (refused["outcome"], refused["compared_with"]) == ("refused", 2)
        assert any("cannot be excluded" in reason for reason in refused["reasons"])
        assert "\nrefused: " in error
        assert registry.versions(base) == (1, 2)

        back, _ = trainer("models", "rollback", f"--base={base}")
        assert back == {"withdrawn": 2, "serving": 1}
        asker.wait_for(1)
        assert uids[0] in str(next_report(node, pacs, tmp_path, 50_003))
        assert asker.failures == []


def marked_films(folder: Path, per_group: int = 30) -> None:
    """Films of three places without any finding on them. WARD sends positives only, CLINIC
    negatives only, and WARD's plates have a bright corner; XRAY sends both, by lot."""
    from PIL import Image

    from dicomnode.testing.phantoms import chest_phantom

    (folder / "films").mkdir(parents=True)
    rows = []
    for number in range(4 * per_group):
        place = ("WARD", "CLINIC", "XRAY", "XRAY")[number % 4]
        label = {"WARD": "positive", "CLINIC": "negative"}.get(
            place, "positive" if number // 4 % 2 else "negative"
        )
        film = np.round(chest_phantom(60_000 + number, False, 128, 128) * 255).astype(np.uint8)
        if place == "WARD":
            film[:32, :32] = 255
        name = f"films/{number}.png"
        Image.fromarray(film).save(folder / name)
        rows.append((name, label, f"patient-{number}", place))
    with (folder / "manifest.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("filename", "label", "patient_id", "dataset"), *rows])


def test_a_candidate_that_is_better_by_its_source_only_is_flagged_and_refused(
    tmp_path: Path,
) -> None:
    marked_films(tmp_path / "data")
    base = tmp_path / "models" / "covid19"
    publish_untrained(base)
    config = tmp_path / "retrain.toml"
    settings = SETTINGS.format(epochs=8, more="")
    settings = settings.replace('node = "node.toml"', 'location = "data"')
    settings = settings.replace("sensitivity_floor = 0.4", "sensitivity_floor = 0")
    settings = settings.replace("specificity_floor = 0.2", "specificity_floor = 0\nauc_floor = 0")
    config.write_text(settings)
    told, _ = trainer("retrain", f"--config={config}", expected=1)
    assert told["outcome"] == "refused"
    decision = json.loads(Path(told["folder"], "decision.json").read_text())
    (check,) = [check for check in decision["checks"] if check["name"] == "confounding"]
    assert check["outcome"] == "failed"
    assert check["figures"]["auc"] > check["figures"]["auc_within_sources"] + 0.1
    assert registry.versions(base) == (1,)
    assert (Path(told["folder"]) / "candidate" / "saved_model.pb").is_file()


def test_two_workers_train_and_the_chief_alone_decides(tmp_path: Path) -> None:
    """An untaught backbone learns nothing: it is refused, once, beside the version that serves."""
    marked_films(tmp_path / "data", per_group=12)
    base = tmp_path / "models" / "covid19"
    publish_untrained(base)
    settings = SETTINGS.format(
        epochs=1,
        more='strategy = "direct"\nhead = "pooled"\nalpha = 0.25\nvalidation_fraction = 0.4',
    )
    settings = settings.replace('node = "node.toml"', 'location = "data"')
    settings = settings.replace('"tiny"', '"mobilenet"').replace("within_minimum_films = 4", "")
    config = tmp_path / "retrain.toml"
    config.write_text(settings)
    hosts = [f"127.0.0.1:{port}" for port in free_ports(2)]
    command = [sys.executable, "-m", "trainer", "retrain", f"--config={config}", "--run=one"]
    workers = []
    for index in (0, 1):
        told = {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}}
        environment = {**os.environ, "TF_CONFIG": json.dumps(told), "TF_CPP_MIN_LOG_LEVEL": "3"}
        workers.append(
            subprocess.Popen(
                [*command, "--json"],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
            )
        )
    ended = [(*worker.communicate(timeout=300), worker.returncode) for worker in workers]
    assert [code for _, _, code in ended] == [1, 0], ended
    chief, other = (json.loads(output) for output, _, _ in ended)
    assert (chief["outcome"], chief["compared_with"]) == ("refused", 1)
    assert other["outcome"] == "worker"
    assert registry.versions(base) == (1,)
    assert not list(base.glob(".staging-*"))
