"""The hospital of the acceptance tests: the overlay `k3s-jetson` on two boards, its PACS, a
modality, and what a person asks of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from dicomnode.testing.phantoms import part10_bytes, phantom_dataset
from tests.cluster.boards import Board
from tests.cluster.cluster import Cluster
from tests.cluster.hospital import Pacs, push, running_pacs
from tests.cluster.monitoring import samples, total
from tests.cluster.network import Machine, Network
from tests.cluster.pod import Pod
from tests.cluster.render import rendered
from tests.cluster.supported import Object
from tests.conftest import ROOT

USER = 10001
"""Of our pods, and so of what lies on their claims."""
MODALITY, ARCHIVE = "10.0.20.5", "10.0.30.10"
REQUESTS = ":tensorflow:serving:request_count"
_PASSWORD = "of-this-test"
_SECRETS = {
    "postgres": {"password": _PASSWORD},
    "database": {
        "DICOMNODE_STORAGE__DATABASE_URL": (
            f"postgresql+psycopg://dicomnode:{_PASSWORD}"
            "@postgres.dicomnode.svc.cluster.local.:5432/dicomnode"
        )
    },
}
"""What docs/operations/kubernetes.md has the operator make by hand."""
_WORKLOADS = ("postgres", "inference", "node", "prometheus", "exporter")
Guard = Callable[[Network, list[Object]], Callable[[list[Pod]], None]]


@dataclass
class Hospital:
    """The cluster and who speaks with it."""

    cluster: Cluster
    pacs: Pacs
    modality: Machine
    folder: Path
    overlay: Path
    labels: dict[str, str] = field(default_factory=dict)
    """Of every study that was pushed, by its UID."""
    _next: int = 0

    def push(self, count: int) -> list[str]:
        """New studies, one association each; their UIDs."""
        made = [self._film(self._next + number) for number in range(count)]
        self._next += count
        for study, (path, label) in made:
            push(self.modality, self.cluster.address("node-dicom"), [path])
            self.labels[study] = label
        return [study for study, _ in made]

    def _film(self, number: int) -> tuple[str, tuple[Path, str]]:
        """Study Instance UID, file and label of the phantom with a number."""
        positive = number % 2 == 0
        dataset = phantom_dataset(40_000 + number, positive, rows=256, columns=256)
        path = self.folder / f"{number}.dcm"
        path.write_bytes(part10_bytes(dataset))
        return str(dataset.StudyInstanceUID), (path, "positive" if positive else "negative")

    def await_reports(self, studies: Sequence[str], seconds: float = 90) -> None:
        """Until the PACS has a report of each of them."""
        self.cluster.until(
            lambda: set(studies) <= set(self.pacs.documents("SR")),
            seconds=seconds,
            what=f"reports of {len(studies)} studies",
        )

    def require_one_report_each(self) -> None:
        """Of everything that was ever pushed; and no job was given up."""
        reports = {study: len(found) for study, found in self.pacs.documents("SR").items()}
        assert reports == dict.fromkeys(self.labels, 1)
        assert self.failed_jobs() == 0

    def failed_jobs(self) -> float:
        nodes = self.cluster.ready("node")
        assert nodes
        return max(total(self.cluster, pod, "dicomnode_jobs", state="failed") for pod in nodes)

    def answered(self, pod: Pod) -> float:
        """Requests that a model server answered well, by its own count."""
        return total(self.cluster, pod, REQUESTS, status="OK")

    def failures(self) -> Counter[tuple[str, str]]:
        """Requests that failed, by model server and code, as the nodes count them."""
        found: Counter[tuple[str, str]] = Counter()
        for pod in self.cluster.ready("node"):
            for labels, value in samples(self.cluster, pod, "dicomnode_inference_requests_total"):
                if labels["code"] != "OK":
                    found[labels["backend"], labels["code"]] += int(value)
        return found


@contextmanager
def running_hospital(
    network: Network, folder: Path, guard: Guard | None = None
) -> Iterator[Hospital]:
    """Everything that the overlay has is running, and ready.

    `guard` gets the objects, and gives what is told of every change of the pods.
    """
    modality, archive = (network.attach_host(each) for each in (MODALITY, ARCHIVE))
    overlay = folder / "overlay"
    objects = rendered("k3s-jetson", overlay, modality=MODALITY, pacs=ARCHIVE)
    cluster = Cluster(
        objects,
        network=network,
        folder=folder / "cluster",
        boards=[Board(name="jetson-1"), Board(name="jetson-2")],
        secrets=_SECRETS,
        changed=guard(network, objects) if guard is not None else None,
    )
    _publish_first_version(cluster.claims["models"] / "covid19")
    with running_pacs(archive, folder / "pacs") as pacs, cluster:
        for name in _WORKLOADS:
            cluster.await_ready(name)
        yield Hospital(cluster, pacs, modality, folder, overlay)


def _publish_first_version(base: Path) -> None:
    base.mkdir()
    subprocess.run(
        [sys.executable, "-m", "tests.cluster.ignorant", str(base)],
        check=True,
        timeout=120,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    for path in (base, *base.rglob("*")):
        os.chown(path, USER, USER)
