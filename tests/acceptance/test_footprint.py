"""A node fits on a small board: memory after work, no tensorflow, quickly ready."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from dicomnode.testing.model_servers import FakeModelServer
from dicomnode.testing.pacs import ReceivingPacs
from dicomnode.testing.phantoms import part10_bytes, phantom_dataset
from tests.acceptance.conftest import push
from tests.acceptance.node import RunningNode, until

RESIDENT_BYTES = 220_000_000
IMAGES = 200


def test_the_node_is_small_when_idle_after_two_hundred_images(
    tmp_path: Path, pacs: ReceivingPacs, model_server: FakeModelServer, capsys
) -> None:
    """Images of 1024 x 1024; the decoder's processes give their memory back when idle."""
    node = RunningNode(tmp_path, targets=[model_server.target], pacs_port=pacs.port)
    dataset = phantom_dataset(3, True, rows=1024, columns=1024)
    path = tmp_path / "image.dcm"
    with node:
        node.wait_ready()
        for number in range(IMAGES):
            dataset.StudyInstanceUID = f"2.25.{1000 + number}"
            dataset.SOPInstanceUID = f"2.25.{5000 + number}"
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            path.write_bytes(part10_bytes(dataset))
            assert push(node, path) == [0x0000]
        assert pacs.wait_for(lambda p: len(p.reports) == len(p.heatmaps) == IMAGES, 120)
        busy = node.resident_bytes()
        resident = until(
            lambda: (size := node.resident_bytes()) <= RESIDENT_BYTES and size,
            seconds=60,
            what=f"at most {RESIDENT_BYTES / 1e6:.0f} MB, last {node.resident_bytes() / 1e6:.0f}",
        )
        assert node.process is not None
        maps = Path(f"/proc/{node.process.pid}/maps").read_text()
        assert "tensorflow" not in maps
    with capsys.disabled():
        print(
            f"\nresident after {IMAGES} images: {busy / 1e6:.0f} MB busy, {resident / 1e6:.0f} idle"
        )


def test_the_node_imports_no_tensorflow() -> None:
    code = "import sys, dicomnode.daemon; print([m for m in sys.modules if 'tensorflow' in m])"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout.strip() == "[]"
