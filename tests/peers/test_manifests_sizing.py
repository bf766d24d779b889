"""What the overlays ask for fits the machines that they are for."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dicomnode.config import load
from tests.acceptance.test_footprint import RESIDENT_BYTES
from tests.conftest import ROOT
from tests.peers.manifests import (
    DEPLOY,
    VARIANTS,
    Cluster,
    Template,
    bytes_of,
    cluster,
    container,
    cores_of,
)
from tests.unit.network_policies import selects
from trainer.submit import render
from trainer.submit.settings import load as load_submit

MIB = 2**20


@dataclass(frozen=True)
class Machine:
    """What a machine gives to pods."""

    cores: float
    memory: int


BOARD = Machine(cores=4, memory=2900 * MIB)
"""4 GB: 1 GiB is the system's and k3s's."""
SERVER = Machine(cores=16, memory=28 * 1024 * MIB)
"""32 GB, of which 4 GiB are the system's."""


@dataclass(frozen=True)
class Ask:
    """What one pod asks for."""

    name: str
    cores: float
    memory: int
    apart: bool
    """Never two of this name on one machine."""


def asks(found: Cluster) -> list[Ask]:
    """Of all pods that run at the same time while a retraining does."""
    made = []
    for template in found.templates()[:-1]:  # the last one is the example's, not this overlay's
        apart = "required" in str(template.spec.get("affinity", ""))
        made += [_ask(template, apart=apart)] * template.replicas
        if template.component == "submit":
            submitted = load_submit(DEPLOY / "overlays" / _overlay(found) / "submit.toml")
            job = render(submitted, "run").job["spec"]
            worker = Template({}, job["template"]["metadata"], job["template"]["spec"])
            made += [_ask(worker, apart=True, name="worker")] * job["parallelism"]
    return made


def _overlay(found: Cluster) -> str:
    return VARIANTS[found.name][0]


def _ask(template: Template, *, apart: bool, name: str | None = None) -> Ask:
    requests = [each["resources"]["requests"] for each in template.spec["containers"]]
    return Ask(
        name=name or template.name,
        cores=sum(cores_of(each["cpu"]) for each in requests),
        memory=sum(bytes_of(each["memory"]) for each in requests),
        apart=apart,
    )


def laid_out(pods: list[Ask], machine: Machine, count: int) -> list[list[Ask]] | None:
    """The largest first, each where most memory is left; None when one fits nowhere."""
    machines: list[list[Ask]] = [[] for _ in range(count)]
    for pod in sorted(pods, key=lambda each: each.memory, reverse=True):
        fitting = [
            there
            for there in machines
            if not (pod.apart and any(other.name == pod.name for other in there))
            and sum(other.memory for other in there) + pod.memory <= machine.memory
            and sum(other.cores for other in there) + pod.cores <= machine.cores
        ]
        if not fitting:
            return None
        min(fitting, key=lambda there: sum(other.memory for other in there)).append(pod)
    return machines


@pytest.mark.parametrize(
    ("variant", "machine", "count"),
    [
        ("k3s-jetson", BOARD, 2),
        ("k3s-jetson with backup", BOARD, 2),
        ("k3s-jetson with workers", BOARD, 2),
        ("k3s-amd64", SERVER, 2),
        ("k3s-amd64 with TensorFlow Serving", SERVER, 2),
        ("single-node", Machine(cores=4, memory=7 * 1024 * MIB), 1),
        ("single-node with backup", Machine(cores=4, memory=7 * 1024 * MIB), 1),
    ],
)
def test_everything_finds_a_place_while_a_retraining_runs(
    variant: str, machine: Machine, count: int
) -> None:
    placed = laid_out(asks(cluster(variant)), machine, count)
    assert placed is not None
    for there in placed:
        names = ", ".join(sorted(pod.name for pod in there))
        memory = sum(pod.memory for pod in there) // MIB
        print(f"{variant}: {memory} of {machine.memory // MIB} MiB: {names}")


@pytest.mark.parametrize("variant", ["k3s-jetson", "k3s-jetson with backup"])
def test_the_retraining_finds_a_board_however_the_others_have_come_to_lie(variant: str) -> None:
    """Nobody moves a running pod, and PostgreSQL and Prometheus never leave their disk."""
    pods = asks(cluster(variant))
    (retrain,) = [each for each in pods if each.name == "retrain"]
    for there, left in every_way(pods, without={"retrain"}):
        assert max(left) >= retrain.memory, there


def test_a_worker_finds_room_on_both_boards_however_the_others_have_come_to_lie() -> None:
    """PostgreSQL and Prometheus are on two boards, as the manifests wish; gpu-check has ended."""
    found = cluster("k3s-jetson with workers")
    database = found.template("postgres").labels
    wish = found.template("prometheus").spec["affinity"]["podAntiAffinity"]
    (term,) = wish["preferredDuringSchedulingIgnoredDuringExecution"]
    assert selects(term["podAffinityTerm"]["labelSelector"], database)
    pods = asks(found)
    worker = next(each for each in pods if each.name == "worker")
    for there, left in every_way(pods, without={"worker", "gpu-check"}):
        if there["postgres"] != there["prometheus"]:
            assert min(left) >= worker.memory, there


def test_the_training_of_the_manual_asks_for_what_a_worker_on_a_board_gets() -> None:
    """The example is for servers; the manual's `sed` makes it one for boards."""
    manual = (ROOT / "docs" / "operations" / "bare-boards.md").read_text()
    (old, new) = re.findall(r"sed 's/(memory: \w+)/(memory: \w+)/'", manual)[0]
    text = (DEPLOY / "examples" / "training-job.yaml").read_text()
    assert text.count(old) == 2, "request and limit"
    settings = load_submit(DEPLOY / "overlays" / "k3s-jetson" / "submit.toml")
    assert new == f"memory: {settings.cluster.memory}"


def every_way(
    pods: list[Ask], *, without: set[str]
) -> Iterator[tuple[dict[str, int], tuple[int, int]]]:
    """Each way in which what is not on both boards may lie on two, and what each has left."""
    there = [each for each in pods if each.name not in without]
    both = [each for each in there if each.apart]
    others = [each for each in there if not each.apart]
    assert {each.name for each in both} == {"node", "inference"}
    assert {"postgres", "prometheus", "grafana"} <= {each.name for each in others}
    for places in itertools.product((0, 1), repeat=len(others)):
        left = [BOARD.memory - sum(each.memory for each in both) // 2] * 2
        for pod, place in zip(others, places, strict=True):
            left[place] -= pod.memory
        names = [each.name for each in others]
        yield dict(zip(names, places, strict=True)), (left[0], left[1])


def test_a_board_that_is_too_small_is_seen() -> None:
    smaller = Machine(cores=4, memory=1500 * MIB)
    assert laid_out(asks(cluster("k3s-jetson")), smaller, 2) is None
    assert laid_out(asks(cluster("k3s-jetson")), BOARD, 1) is None, "model servers go apart"


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_decoder_meets_its_own_limit_before_the_pods(variant: str, tmp_path: Path) -> None:
    found = cluster(variant)
    path = tmp_path / "node.toml"
    path.write_text(found.one("ConfigMap", "node-config")["data"]["node.toml"])
    worker = load(path, environment={}).worker
    limit = bytes_of(container(found.template("node"))["resources"]["limits"]["memory"])
    assert limit >= RESIDENT_BYTES + worker.analysers * worker.decode_memory_bytes


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_retraining_leaves_cores_to_the_model_server(variant: str) -> None:
    found = cluster(variant)
    retrain = container(found.template("retrain"))["resources"]["limits"]
    serving = container(found.template("inference"))["resources"]["limits"]
    assert cores_of(retrain["cpu"]) <= cores_of(serving["cpu"]) / 2


@pytest.mark.parametrize("variant", VARIANTS)
def test_prometheus_keeps_less_than_its_volume_holds(variant: str) -> None:
    found = cluster(variant)
    arguments = container(found.template("prometheus"))["args"]
    (size,) = [each for each in arguments if each.startswith("--storage.tsdb.retention.size=")]
    kept = int(size.partition("=")[2].removesuffix("GB")) * 2**30  # Prometheus means powers of 2
    claim = found.one("PersistentVolumeClaim", "prometheus")["spec"]
    assert kept * 1.2 <= bytes_of(claim["resources"]["requests"]["storage"])
    assert "--storage.tsdb.retention.time=45d" in arguments, "the drift rules look back 31 days"
