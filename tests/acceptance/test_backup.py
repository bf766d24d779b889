"""Backing up while studies are pushed, and restoring elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

from dicomnode.testing.model_servers import FakeModelServer
from dicomnode.testing.pacs import ReceivingPacs
from tests.acceptance.conftest import MakePhantom, push
from tests.acceptance.node import RunningNode, until
from tests.acceptance.test_power_cuts import Modality

BEFORE = 12


def test_no_acknowledged_study_is_missing_from_a_backup_that_was_taken_while_pushing(
    tmp_path: Path, pacs: ReceivingPacs, model_server: FakeModelServer, phantom: MakePhantom
) -> None:
    """Two backups, the second beside the first; each is restored by a node of its own, which
    goes on where the copied one stood."""
    first = tmp_path / "first"
    first.mkdir()
    node = RunningNode(first, targets=[model_server.target], pacs_port=pacs.port)
    target = tmp_path / "backups"
    promised: list[set[str]] = []
    taken: list[dict[str, object]] = []
    with node:
        node.wait_ready()
        modality = Modality(node.port, phantom)
        modality.start()
        try:
            for number in (1, 2):
                enough = BEFORE * number
                until(
                    lambda enough=enough: len(modality.acknowledged) >= enough,
                    seconds=60,
                    what="studies are acknowledged",
                )
                promised.append(set(modality.acknowledged))
                done = node.run("backup", str(target), "--json", "--verify")
                assert done.returncode == 0, done.stderr
                taken.append(json.loads(done.stdout))
            during = set(modality.acknowledged)
        finally:
            modality.enough.set()
            modality.join(30)
    assert during > promised[0]  # it was really pushing
    assert taken[1]["linked_files"]
    for number, (acknowledged, facts) in enumerate(zip(promised, taken, strict=True)):
        folder = tmp_path / f"restored-{number}"
        folder.mkdir()
        other = RunningNode(folder, targets=[model_server.target], pacs_port=pacs.port, versions=())
        done = other.run("restore", str(facts["backup"]), "--json")
        assert done.returncode == 0, done.stderr
        with other:
            other.wait_ready()
            assert acknowledged <= _readable_studies(other)
            assert pacs.wait_for(
                lambda p, wanted=acknowledged: (
                    wanted <= {str(ds.StudyInstanceUID) for ds in p.reports}
                ),
                60,
            )
            # images that came in with the copied ones are known, new ones are taken
            study, path = phantom(0)
            assert push(other, path) == [0x0000]
            assert study in acknowledged


def _readable_studies(node: RunningNode) -> set[str]:
    """Studies whose every image is on disk as it was received."""
    storage = node.opened()
    try:
        readable = set()
        for study in storage.index.studies(limit=10_000):
            images = [i for i, _ in storage.index.outcomes(study.study_instance_uid)]
            assert images
            assert all(
                storage.files.absolute(image.path).stat().st_size == image.size for image in images
            )
            readable.add(study.study_instance_uid)
        return readable
    finally:
        storage.close()
