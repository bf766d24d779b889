"""kill -9 at random moments: what was acknowledged is stored and reported exactly once."""

from __future__ import annotations

import collections
import os
import random
import threading
from pathlib import Path

from dicomnode.dimse import send_files
from dicomnode.errors import DicomnodeError
from dicomnode.testing.model_servers import FakeModelServer
from dicomnode.testing.pacs import ReceivingPacs
from tests.acceptance.conftest import MakePhantom
from tests.acceptance.node import RunningNode, until

ROUNDS = int(os.environ.get("DICOMNODE_KILL_ROUNDS", "30"))


class Modality(threading.Thread):
    """Sends studies one after the other and repeats only what was not acknowledged."""

    def __init__(self, port: int, phantom: MakePhantom) -> None:
        super().__init__(name="modality")
        self._port = port
        self._phantom = phantom
        self.enough = threading.Event()
        self.acknowledged: list[str] = []
        self.attempts = 0

    def run(self) -> None:
        number = 0
        while not self.enough.is_set():
            study, path = self._phantom(number)
            if self._stored(path):
                self.acknowledged.append(study)
                number += 1

    def _stored(self, path: Path) -> bool:
        self.attempts += 1
        try:
            results = send_files(
                "127.0.0.1",
                self._port,
                [path],
                called_ae_title="DICOMNODE",
                calling_ae_title="XRAY1",
                timeout_seconds=5,
            )
            return [result.status for result in results] == [0x0000]
        except DicomnodeError:
            self.enough.wait(0.05)
            return False


def test_every_acknowledged_study_is_reported_exactly_once(
    tmp_path: Path,
    pacs: ReceivingPacs,
    model_server: FakeModelServer,
    phantom: MakePhantom,
    capsys,
) -> None:
    moments = random.Random(9)
    node = RunningNode(
        tmp_path, targets=[model_server.target], pacs_port=pacs.port, idle_seconds=0.0
    )
    node.start()
    modality = Modality(node.port, phantom)
    modality.start()
    try:
        for _ in range(ROUNDS):
            # what is waited for here is nothing but the random moment of the power cut
            modality.enough.wait(moments.uniform(0.0, 1.0))
            node.kill()
            node.start()
    finally:
        modality.enough.set()
        modality.join(30)
    acknowledged = set(modality.acknowledged)
    try:
        assert len(acknowledged) >= ROUNDS
        assert pacs.wait_for(
            lambda p: acknowledged <= {str(ds.StudyInstanceUID) for ds in p.reports}, 120
        )
        until(lambda: _jobs_left(node) == 0, seconds=60, what="the queue is empty")
        reports = collections.Counter(str(ds.StudyInstanceUID) for ds in pacs.reports)
        assert set(reports.values()) == {1}
        heatmaps = collections.Counter(str(ds.StudyInstanceUID) for ds in pacs.heatmaps)
        assert heatmaps == reports
        node.kill()
        node.start()
        node.wait_ready()
        _assert_nothing_is_left_over(node, acknowledged)
    finally:
        node.kill()
    with capsys.disabled():
        print(
            f"\n{ROUNDS} kills: {len(acknowledged)} acknowledged in {modality.attempts} attempts, "
            f"{len(reports)} reported once, {pacs.stores} C-STOREs at the PACS"
        )


def _jobs_left(node: RunningNode) -> int:
    status, text = node.get("/metrics")
    assert status == 200
    states = ("queued", "running", "failed")
    lines = [line for line in text.splitlines() if line.startswith("dicomnode_jobs{")]
    return sum(
        int(float(line.rpartition(" ")[2]))
        for line in lines
        if any(f'state="{state}"' in line for state in states)
    )


def _assert_nothing_is_left_over(node: RunningNode, acknowledged: set[str]) -> None:
    root = node.folder / "var"
    assert list((root / "incoming").iterdir()) == []
    on_disk = {str(path.relative_to(root)) for path in root.glob("instances/**/*.dcm")}
    storage = node.opened()
    try:
        studies = storage.index.studies(limit=100_000)
        indexed = {
            instance.path
            for study in studies
            for instance, _ in storage.index.outcomes(study.study_instance_uid)
        }
    finally:
        storage.close()
    assert acknowledged <= {study.study_instance_uid for study in studies}
    assert on_disk == indexed
    strays = [
        p for p in root.rglob("*") if p.is_file() and ("tmp" in p.suffix or ".part" in p.name)
    ]
    assert strays == []
