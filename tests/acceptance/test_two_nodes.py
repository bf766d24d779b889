"""Two replicas on one database and one folder, one of them killed with -9 half-way."""

from __future__ import annotations

import collections
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text

from dicomnode.config import StorageSettings
from dicomnode.dimse import send_files
from dicomnode.errors import DicomnodeError
from dicomnode.jobs import JobState
from dicomnode.storage import Storage, open_storage
from dicomnode.testing.model_servers import FakeModelServer
from dicomnode.testing.pacs import ReceivingPacs
from tests.acceptance.conftest import MakePhantom
from tests.acceptance.node import RunningNode, until
from tests.integration.conftest import new_database_url, postgres_url

__all__ = ["new_database_url", "postgres_url"]

STUDIES = int(os.environ.get("DICOMNODE_TWO_NODES_STUDIES", "500"))
MODALITIES = 4
LEASE_SECONDS = 3.0


class Sender:
    """A modality with two addresses: what one node did not acknowledge goes to the other."""

    def __init__(self, nodes: Sequence[RunningNode], phantom: MakePhantom) -> None:
        self._ports = [node.port for node in nodes]
        self._phantom = phantom
        self._lock = threading.Lock()
        self.go_on = threading.Event()
        """The second half waits for it: receiving is much faster than reporting."""
        self.acknowledged: set[str] = set()
        self.repeated = 0

    def send(self, number: int) -> None:
        if number >= STUDIES // 2:
            assert self.go_on.wait(120)
        with self._lock:  # the phantoms share their data sets
            study, path = self._phantom(number)
        end = time.monotonic() + 60
        turn = number
        while not self._stored(self._ports[turn % 2], path):
            assert time.monotonic() < end, f"study {number} was not taken by either node"
            turn += 1
            with self._lock:
                self.repeated += 1
        with self._lock:
            self.acknowledged.add(study)

    def _stored(self, port: int, path: Path) -> bool:
        try:
            results = send_files(
                "127.0.0.1",
                port,
                [path],
                called_ae_title="DICOMNODE",
                calling_ae_title="XRAY1",
                timeout_seconds=10,
            )
            return [result.status for result in results] == [0x0000]
        except DicomnodeError:
            return False


def test_of_two_replicas_one_is_killed_half_way_and_every_study_is_reported_exactly_once(
    tmp_path: Path,
    pacs: ReceivingPacs,
    model_server: FakeModelServer,
    phantom: MakePhantom,
    new_database_url,
    monkeypatch: pytest.MonkeyPatch,
    capsys,
) -> None:
    url = new_database_url()
    monkeypatch.setenv("DICOMNODE_STORAGE__DATABASE_URL", url)
    monkeypatch.setenv("DICOMNODE_STORAGE__ROOT", str(tmp_path / "shared"))
    monkeypatch.setenv("DICOMNODE_WORKER__LEASE_SECONDS", str(LEASE_SECONDS))
    nodes = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        nodes.append(
            RunningNode(
                tmp_path / name,
                targets=[model_server.target],
                pacs_port=pacs.port,
                idle_seconds=0.0,
            )
        )
    doomed, survivor = nodes
    sender = Sender(nodes, phantom)
    with doomed, survivor:
        for node in nodes:
            node.wait_ready()
        with ThreadPoolExecutor(MODALITIES, thread_name_prefix="modality") as modalities:
            sending = [modalities.submit(sender.send, number) for number in range(STUDIES)]
            assert pacs.wait_for(lambda p: len(p.reports) >= STUDIES // 4, 120)
            sender.go_on.set()
            until(
                lambda: len(sender.acknowledged) > STUDIES // 2 + 2 * MODALITIES,
                seconds=60,
                what="the second half is being sent",
            )
            doomed.kill()
            for future in sending:
                future.result()
        assert sender.repeated
        assert len(sender.acknowledged) == STUDIES
        assert pacs.wait_for(lambda p: len(p.reports) >= STUDIES, 240)
        storage = open_storage(StorageSettings(root=tmp_path / "shared", database_url=url))
        try:
            until(lambda: _jobs_left(storage) == 0, seconds=60, what="the queue is empty")
            reported_by = _reports_per_study(storage)
        finally:
            storage.close()
    reports = collections.Counter(str(ds.StudyInstanceUID) for ds in pacs.reports)
    heatmaps = collections.Counter(str(ds.StudyInstanceUID) for ds in pacs.heatmaps)
    assert set(reports) == sender.acknowledged
    assert set(reports.values()) == {1}
    assert heatmaps == reports
    assert not [ds for ds in pacs.reports if "PredecessorDocumentsSequence" in ds]
    assert set(reported_by.values()) == {1}
    assert {path.name for path in (tmp_path / "shared" / "instances").iterdir()} == set(reports)
    with capsys.disabled():
        print(
            f"\n{STUDIES} studies to two nodes, one killed: {sender.repeated} sent again, "
            f"{len(reports)} reported once, {pacs.stores} C-STOREs at the PACS"
        )


def _jobs_left(storage: Storage) -> int:
    counts = storage.queue.counts()
    return sum(counts.get(s, 0) for s in (JobState.QUEUED, JobState.RUNNING, JobState.FAILED))


def _reports_per_study(storage: Storage) -> dict[str, int]:
    """As the database has it: none was planned twice either."""
    question = text(
        "SELECT study_instance_uid, count(*) FROM documents WHERE kind = 'sr'"
        " GROUP BY study_instance_uid"
    )
    return {row[0]: row[1] for row in storage.database.read(lambda c: c.execute(question).all())}
