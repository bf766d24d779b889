"""The manifests of `deploy/overlays/k3s-jetson`, run: two boards, a PACS, a modality, Prometheus.

Nothing of the manifests is replaced but the images, which are this interpreter and repository
and Debian's programs; docs/operations/cluster-in-namespaces.md says what is carried out.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import threading
from collections.abc import Iterator

import pytest
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO

from tests.cluster.boards import Board
from tests.cluster.cluster import Cluster
from tests.cluster.monitoring import ClusterPrometheus, fetched
from tests.cluster.namespaces import require_namespaces
from tests.cluster.network import Network
from tests.cluster.pod import Pod
from tests.cluster.site import REQUESTS, USER, Hospital, running_hospital
from tests.cluster.training import submitted
from trainer import registry

pytest.importorskip("tensorflow", reason="needs the `model` extra")

STUDIES = 60
WARM = 5
"""Answers of each model server before the shares are counted: its first one takes long, and a
node that met it gives the other board more until it is forgotten."""


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    require_namespaces()
    folder = tmp_path_factory.mktemp("cluster")
    with Network(folder / "net") as network, running_hospital(network, folder) as running:
        yield running


def test_studies_pushed_come_out_as_one_report_each_and_both_boards_answer(
    hospital: Hospital, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = hospital.cluster
    boards = {cluster.board(pod): pod for pod in cluster.ready("inference")}
    assert set(boards) == {"jetson-1", "jetson-2"}
    while min(hospital.answered(pod) for pod in boards.values()) < WARM:
        hospital.await_reports(hospital.push(5))
        assert len(hospital.labels) < STUDIES, "one board gets no requests"
    before = {name: hospital.answered(pod) for name, pod in boards.items()}
    hospital.await_reports(hospital.push(STUDIES))
    hospital.require_one_report_each()
    answered = {name: hospital.answered(pod) - before[name] for name, pod in boards.items()}
    assert sum(answered.values()) == STUDIES, "each was asked about once"
    with capsys.disabled():
        print(f"\nof {STUDIES} studies: {answered}")
    assert all(0.4 <= count / STUDIES <= 0.6 for count in answered.values()), answered


class Pushing:
    """A modality that goes on pushing, one study after the other. A context manager."""

    def __init__(self, hospital: Hospital) -> None:
        self._hospital = hospital
        self._stop = threading.Event()
        self._failures: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, name="modality")
        self.studies: list[str] = []

    def __enter__(self) -> Pushing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        assert self._failures == []

    def _run(self) -> None:
        while not self._stop.wait(0.3):
            try:
                self.studies += self._hospital.push(1)
            except (AssertionError, subprocess.TimeoutExpired) as error:
                self._failures.append(error)
                return


def test_requests_follow_when_a_model_server_is_lost_and_when_one_is_added(
    hospital: Hospital,
) -> None:
    """Within ten seconds of being ready, while images arrive; no job fails. One that is taken
    away in order is missed by nobody."""
    cluster = hospital.cluster
    with Pushing(hospital) as pushing:
        lost, _ = cluster.ready("inference")
        hospital_is_busy(hospital, pushing)
        cluster.kill(lost)
        (new,) = [pod for pod in cluster.await_ready("inference") if pod is not lost][1:]
        assert cluster.board(new) == cluster.board(lost)
        assert new.address != lost.address
        asked_within(10, hospital, new)

        cluster.scale("inference", 3)
        cluster.until(
            lambda: "inference" in cluster.pending, seconds=10, what="no board for a third one"
        )
        assert "anti-affinity" in cluster.pending["inference"]
        cluster.add_board(Board(name="jetson-3"))
        third = cluster.await_ready("inference")[-1]
        assert cluster.board(third) == "jetson-3"
        asked_within(10, hospital, third)

        before = hospital.failures()
        cluster.scale("inference", 2)
        cluster.until(lambda: third.ending, seconds=10, what="one that has to go")
        cluster.until(lambda: not third.running(), seconds=60, what="its end")
        assert hospital.failures() == before, "one that ends in order refuses nobody"
    hospital.await_reports(pushing.studies)
    hospital.require_one_report_each()


def hospital_is_busy(hospital: Hospital, pushing: Pushing) -> None:
    hospital.cluster.until(lambda: len(pushing.studies) >= 5, seconds=60, what="five studies")


def asked_within(seconds: float, hospital: Hospital, pod: Pod) -> None:
    hospital.cluster.until(
        lambda: hospital.answered(pod) > 0, seconds=seconds, what=f"a request at {pod.name}"
    )


def test_a_training_on_both_boards_publishes_the_version_that_reports_name_next(
    hospital: Hospital,
) -> None:
    cluster = hospital.cluster
    hospital.await_reports(hospital.push(max(0, STUDIES - len(hospital.labels))))
    import_labels(hospital)
    hand_over_node_settings(hospital)
    manifests = submitted(hospital.overlay / "submit.toml", SMALL, "retrain-1")
    base = cluster.claims["models"] / "covid19"
    assert registry.versions(base) == (1,)
    before = hospital.failures()
    with Pushing(hospital) as pushing:
        with cluster.job(manifests) as job:
            assert job.wait(120) == "Complete", job.said()
            assert len({cluster.board(pod) for pod in job.every_pod}) == 2
        assert job.failures == []
        for pod in cluster.ready("inference"):
            cluster.until(lambda pod=pod: serves(cluster, pod, 2), seconds=30, what="version 2")
    assert registry.versions(base) == (1, 2)
    last = hospital.push(1)
    hospital.await_reports([*pushing.studies, *last])
    assert registry.read_card(base, 2).device_uid in report_text(hospital, last[0])
    assert registry.read_card(base, 1).device_uid in report_text(
        hospital, next(iter(hospital.labels))
    )
    hospital.require_one_report_each()
    assert hospital.failures() == before


SMALL = {
    # the parts follow from a key that each store makes for itself: equal parts, so that none is
    # without a label but once in thousands of runs
    "fit": {
        "alpha": 0.25,
        "weights": "random",
        "epochs": 4,
        "test_fraction": 0.33,
        "validation_fraction": 0.5,
    },
    # what an untaught backbone learns from sixty films is not the question here
    "gate": {
        "minimum_patients": 2,
        "minimum_positive_patients": 1,
        "minimum_negative_patients": 1,
        "sensitivity_floor": 0.0,
        "specificity_floor": 0.0,
        "auc_floor": 0.0,
        "source_minimum_films": 1000,
        "within_minimum_films": 2,
        "margin": 0.5,
        "resamples": 200,
        "confounding": "warn",
    },
}


def import_labels(hospital: Hospital) -> None:
    """As an operator does it, with `kubectl exec` in a node."""
    labels = hospital.cluster.claims["store"] / "labels.csv"
    with labels.open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [("study_instance_uid", "label"), *list(hospital.labels.items())[:STUDIES]]
        )
    done = hospital.cluster.ready("node")[0].run(
        *("dicomnode", "labels", "import", "/var/lib/dicomnode/labels.csv", "--source=test"),
        *("--author=test", "--new-class=positive", "--new-class=negative"),
        *("--config", "/etc/dicomnode/node.toml"),
    )
    assert done.returncode == 0, done.stderr


def hand_over_node_settings(hospital: Hospital) -> None:
    """The first container of the CronJob's pod does it: workers see their claims only."""
    path = hospital.cluster.claims["work"] / "node.toml"
    path.write_text((hospital.overlay / "node.toml").read_text())
    os.chown(path, USER, USER)


def serves(cluster: Cluster, pod: Pod, version: int) -> bool:
    status = json.loads(fetched(cluster, pod, 8501, "/v1/models/covid19"))
    states = {each["version"]: each["state"] for each in status["model_version_status"]}
    return states.get(str(version)) == "AVAILABLE"


def report_text(hospital: Hospital, study: str) -> str:
    (instance,) = hospital.pacs.documents("SR")[study]
    return str(dcmread(DicomBytesIO(hospital.pacs.file(instance))))


def test_prometheus_finds_every_replica_and_counts_what_they_answered(hospital: Hospital) -> None:
    """By DNS, as its manifest says: it needs no permission on the API server."""
    cluster = hospital.cluster
    (pod,) = cluster.ready("prometheus")
    prometheus = ClusterPrometheus(cluster, pod)
    expected = {
        "dicomnode": {f"{each.address}:8080" for each in cluster.pods("node")},
        "model-server": {f"{each.address}:8501" for each in cluster.pods("inference")},
        "machine": {f"{each.address}:9100" for each in cluster.pods("exporter")},
        "prometheus": {"127.0.0.1:9090"},
    }

    def up() -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for sample in prometheus.query("up == 1"):
            found.setdefault(sample["metric"]["job"], set()).add(sample["metric"]["instance"])
        return found

    cluster.until(lambda: up() == expected, seconds=60, what=f"targets {expected}")
    for each in cluster.ready("inference"):
        cluster.until(
            lambda each=each: counted(prometheus, each) == hospital.answered(each) > 0,
            seconds=60,
            what=f"Prometheus counts what {each.name} does",
        )


def counted(prometheus: ClusterPrometheus, pod: Pod) -> float:
    labels = f'instance="{pod.address}:8501",status="OK"'
    return prometheus.number(f'sum({{__name__="{REQUESTS}",{labels}}})')


def test_what_does_not_run_is_said(hospital: Hospital) -> None:
    workloads = [line for line in hospital.cluster.left_out if line.startswith("Deployment")]
    assert workloads == [
        "Deployment grafana: Debian has no Grafana",
        "Deployment jupyter: it is not installed here, and no replica is asked for on boards",
    ]
