"""PACS away, model server away, disk full: nothing is lost, and the node says what is wrong."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomnode.testing.model_servers import FakeModelServer
from dicomnode.testing.pacs import ReceivingPacs, receiving_pacs
from dicomnode.testing.phantoms import part10_bytes, phantom_dataset
from tests.acceptance.conftest import MakePhantom, push
from tests.acceptance.node import RunningNode, free_ports, until


def test_reports_wait_for_a_pacs_that_is_away(
    tmp_path: Path, model_server: FakeModelServer, phantom: MakePhantom
) -> None:
    (port,) = free_ports(1)
    node = RunningNode(tmp_path, targets=[model_server.target], pacs_port=port)
    with node:
        node.wait_ready()
        assert push(node, *(phantom(number)[1] for number in range(10, 14))) == [0] * 4
        until(
            lambda: any(e.get("error_code") == "destination_unavailable" for e in node.events()),
            seconds=20,
            what="a delivery fails",
        )
        assert node.ready(), "a PACS that is away does not make the node unready"
        with receiving_pacs(port=port) as pacs:
            assert pacs.wait_for(lambda p: len(p.reports) == len(p.heatmaps) == 4, 30)
            assert pacs.stores == 8, "each document was sent once"


def test_studies_wait_for_a_model_server_that_is_away(
    tmp_path: Path, pacs: ReceivingPacs, phantom: MakePhantom
) -> None:
    (port,) = free_ports(1)
    node = RunningNode(tmp_path, targets=[f"127.0.0.1:{port}"], pacs_port=pacs.port)
    with node:
        assert push(node, *(phantom(number)[1] for number in range(20, 24))) == [0] * 4
        until(
            lambda: any(e.get("error_code") == "backend_unavailable" for e in node.events()),
            seconds=20,
            what="an inference fails",
        )
        status, answer = node.get("/readyz")
        assert status == 503
        assert answer["checks"]["store"] == answer["checks"]["storage_scp"] == "ok"
        assert "covid19" in answer["checks"]["model"]
        assert pacs.reports == []
        with FakeModelServer(port=port):
            assert pacs.wait_for(lambda p: len(p.reports) == len(p.heatmaps) == 4, 40)
            node.wait_ready()


def test_a_status_that_promises_a_later_success_is_tried_again(
    tmp_path: Path, model_server: FakeModelServer, phantom: MakePhantom
) -> None:
    answers = iter([0xA700, 0xA700])
    pacs = ReceivingPacs(answer=lambda _: next(answers, 0x0000))
    pacs.start()
    node = RunningNode(tmp_path, targets=[model_server.target], pacs_port=pacs.port)
    try:
        with node:
            push(node, phantom(30)[1])
            assert pacs.wait_for(lambda p: len(p.received) == 2, 20)
            assert pacs.stores == 4
    finally:
        pacs.stop()


def test_a_refusal_for_good_becomes_a_dead_letter_that_an_operator_can_retry(
    tmp_path: Path, model_server: FakeModelServer, phantom: MakePhantom
) -> None:
    refusing = [True]
    pacs = ReceivingPacs(answer=lambda _: 0xC123 if refusing[0] else 0x0000)
    pacs.start()
    node = RunningNode(tmp_path, targets=[model_server.target], pacs_port=pacs.port)
    try:
        with node:
            study, path = phantom(31)
            push(node, path)
            until(
                lambda: node.get(f"/api/studies/{study}")[1].get("failed_jobs") == 2,
                seconds=20,
                what="two dead letters",
            )
            assert pacs.stores == 2, "a refusal is not sent again"
            listed = node.run("queue", "list", "--state", "failed", "--json")
            assert listed.stdout.count("0xC123") == 2
            refusing[0] = False
            assert node.run("queue", "retry", "--all-failed").returncode == 0
            assert pacs.wait_for(lambda p: len(p.received) == 2, 20)
            assert node.run("queue", "retry", "--all-failed").returncode == 3
    finally:
        pacs.stop()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)], check=True, timeout=10
    )
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True, timeout=10)


@pytest.mark.parametrize("minimum_free_bytes", [0, 4_000_000])
def test_a_full_disk_refuses_with_a700_and_takes_the_image_when_there_is_room_again(
    small_disk: Path,
    pacs: ReceivingPacs,
    model_server: FakeModelServer,
    tmp_path: Path,
    minimum_free_bytes: int,
) -> None:
    """With and without a margin: the margin refuses early, without it the write fails."""
    path = tmp_path / "large.dcm"
    dataset = phantom_dataset(5, True, rows=1024, columns=1024)
    path.write_bytes(part10_bytes(dataset))
    node = RunningNode(
        small_disk,
        targets=[model_server.target],
        pacs_port=pacs.port,
        minimum_free_bytes=minimum_free_bytes,
    )
    ballast = small_disk / "ballast"
    with node:
        node.wait_ready()
        with ballast.open("wb") as file:
            free = os.statvfs(small_disk).f_bavail * 4096
            file.write(bytes(max(free - 1_000_000, 0)))
        assert push(node, path) == [0xA700]
        if minimum_free_bytes:
            status, answer = node.get("/readyz")
            assert status == 503
            assert "free" in answer["checks"]["store"]
        assert list((small_disk / "var" / "incoming").glob("*.dcm")) == []
        ballast.unlink()
        assert push(node, path) == [0x0000]
        assert pacs.wait_for(lambda p: len(p.received) == 2, 20)
        node.wait_ready()


def test_a_model_server_that_is_killed_under_load_makes_no_job_fail(
    tmp_path: Path, pacs: ReceivingPacs, phantom: MakePhantom
) -> None:
    """Three replicas, one of them ten times as slow; another one is killed."""
    servers = [FakeModelServer(service_seconds=seconds) for seconds in (0.02, 0.02, 0.2)]
    for server in servers:
        server.start()
    try:
        node = RunningNode(
            tmp_path, targets=[server.target for server in servers], pacs_port=pacs.port
        )
        with node:
            node.wait_ready()
            paths = [phantom(number)[1] for number in range(60, 100)]
            assert push(node, *paths[:20]) == [0] * 20
            assert servers[1].arrived.wait(20)
            servers[1].stop()
            assert push(node, *paths[20:]) == [0] * 20
            assert pacs.wait_for(lambda p: len(p.reports) == len(p.heatmaps) == 40, 60)
            assert node.run("queue", "list", "--state", "failed", "--json").stdout.strip() == "[]"
            assert all(server.answered > 0 for server in servers)
    finally:
        for server in servers:
            server.stop()
