"""Who the cluster speaks with: Orthanc as the PACS and DCMTK's storescu as a modality."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.acceptance.node import until
from tests.cluster import namespaces
from tests.cluster.network import Machine
from tests.conftest import require_program
from tests.peers.orthanc import Orthanc

_HTTP_PORT = 8042


class Pacs(Orthanc):
    """An Orthanc on a machine of its own, asked over its loopback."""

    def __init__(self, machine: Machine, ae_title: str, port: int) -> None:
        super().__init__(port, _HTTP_PORT)
        self.machine, self.ae_title = machine, ae_title

    def get(self, path: str) -> Any:
        return namespaces.inside(self.machine.namespace, lambda: super(Pacs, self).get(path))

    def file(self, instance: str) -> bytes:
        inside = namespaces.inside
        return inside(self.machine.namespace, lambda: super(Pacs, self).file(instance))

    def answers(self) -> bool:
        try:
            return bool(self.get("/system"))
        except OSError:
            return False

    def received(self) -> int:
        """How many instances it has."""
        return int(self.get("/statistics")["CountInstances"])


@contextmanager
def running_pacs(
    machine: Machine, folder: Path, *, ae_title: str = "ORTHANC", port: int = 4242
) -> Iterator[Pacs]:
    """Ended with the block."""
    program = require_program("Orthanc")
    folder.mkdir(parents=True)
    settings = {
        "Name": ae_title,
        "DicomAet": ae_title,
        "DicomCheckCalledAet": True,
        "DicomPort": port,
        "HttpPort": _HTTP_PORT,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "StorageDirectory": str(folder / "store"),
        "IndexDirectory": str(folder / "store"),
        "DicomAlwaysAllowStore": True,
    }
    path = folder / "orthanc.json"
    path.write_text(json.dumps(settings))
    command = [require_program("ip"), "netns", "exec", machine.namespace, program, str(path)]
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        pacs = Pacs(machine, ae_title, port)
        until(pacs.answers, seconds=60, what="Orthanc answers")
        yield pacs
    finally:
        process.terminate()
        process.wait(20)


def push(
    modality: Machine, address: str, paths: Sequence[Path], *, ae_title: str = "XRAY1"
) -> None:
    """DCMTK's storescu, which ends with an error when one store is refused."""
    done = subprocess.run(
        [
            *(require_program("ip"), "netns", "exec", modality.namespace),
            *(require_program("storescu"), "--aetitle", ae_title, "--call", "DICOMNODE"),
            *("--timeout", "30", "--propose-lossless", address, "11112"),
            *map(str, paths),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
