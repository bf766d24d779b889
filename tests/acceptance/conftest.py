"""What an acceptance test needs around the node."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicomnode.dimse import send_files
from dicomnode.testing.model_servers import FakeModelServer
from dicomnode.testing.pacs import ReceivingPacs, receiving_pacs
from dicomnode.testing.phantoms import part10_bytes, phantom_dataset
from tests.acceptance.node import RunningNode

MakePhantom = Callable[[int], tuple[str, Path]]


@pytest.fixture
def pacs() -> Iterator[ReceivingPacs]:
    with receiving_pacs() as started:
        yield started


@pytest.fixture
def model_server() -> Iterator[FakeModelServer]:
    with FakeModelServer() as server:
        yield server


@pytest.fixture
def node(
    tmp_path: Path, pacs: ReceivingPacs, model_server: FakeModelServer
) -> Iterator[RunningNode]:
    """A started node between a PACS and a model server."""
    made = RunningNode(tmp_path, targets=[model_server.target], pacs_port=pacs.port)
    with made:
        made.wait_ready()
        yield made


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> MakePhantom:
    """Study Instance UID and file of the phantom with a number; each is another patient.

    Two films serve all of them, so that making one takes no time.
    """
    folder = tmp_path_factory.mktemp("phantoms")
    films = [phantom_dataset(7000 + film, film == 0, rows=320, columns=320) for film in (0, 1)]

    def make(number: int) -> tuple[str, Path]:
        dataset = films[number % 2]
        dataset.PatientID = f"PHANTOM-{number}"
        dataset.PatientName = f"PHANTOM^{number}"
        dataset.StudyInstanceUID = f"2.25.{7_000_000 + number}"
        dataset.SeriesInstanceUID = f"2.25.{8_000_000 + number}"
        dataset.SOPInstanceUID = f"2.25.{9_000_000 + number}"
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        path = folder / f"{number}.dcm"
        if not path.exists():
            path.write_bytes(part10_bytes(dataset))
        return str(dataset.StudyInstanceUID), path

    return make


def push(node: RunningNode, *paths: Path) -> list[int | None]:
    """The statuses that XRAY1 got."""
    results = send_files(
        "127.0.0.1", node.port, paths, called_ae_title="DICOMNODE", calling_ae_title="XRAY1"
    )
    return [result.status for result in results]
