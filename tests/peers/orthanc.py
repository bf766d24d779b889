"""Orthanc as the PACS: started with a folder of its own, asked through its REST API."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.acceptance.node import free_ports, until
from tests.conftest import require_program

PLUGINS = Path("/usr/share/orthanc/plugins")


class Orthanc:
    """A running Orthanc."""

    def __init__(self, port: int, http_port: int) -> None:
        self.port = port
        self._url = f"http://127.0.0.1:{http_port}"
        self.dicomweb_url = f"{self._url}/dicom-web"

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self._url + path, timeout=10) as answer:
            return json.load(answer)

    def file(self, instance: str) -> bytes:
        """The Part 10 file of an instance, by Orthanc's identifier."""
        url = f"{self._url}/instances/{instance}/file"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read()

    def documents(self, modality: str) -> dict[str, list[str]]:
        """Orthanc's identifiers of all instances of a modality, by Study Instance UID."""
        found: dict[str, list[str]] = {}
        for study in self.get("/studies?expand"):
            for series_id in study["Series"]:
                series = self.get(f"/series/{series_id}")
                if series["MainDicomTags"].get("Modality") == modality:
                    uid = study["MainDicomTags"]["StudyInstanceUID"]
                    found.setdefault(uid, []).extend(series["Instances"])
        return found


@contextmanager
def running_orthanc(folder: Path) -> Iterator[Orthanc]:
    """Orthanc on free ports of loopback, ended with the block."""
    program = require_program("Orthanc")
    port, http_port = free_ports(2)
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "Name": "PACS",
        "DicomAet": "PACS",
        "DicomPort": port,
        "HttpPort": http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "StorageDirectory": str(folder / "store"),
        "IndexDirectory": str(folder / "store"),
        "DicomAlwaysAllowStore": True,
        "Plugins": [str(path) for path in PLUGINS.glob("libOrthancDicomWeb.so*")],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    path = folder / "orthanc.json"
    path.write_text(json.dumps(settings))
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen([program, str(path)], stdout=log, stderr=log)
    try:
        orthanc = Orthanc(port, http_port)
        until(lambda: _answers(orthanc), seconds=30, what="Orthanc answers")
        yield orthanc
    finally:
        process.terminate()
        process.wait(20)


def _answers(orthanc: Orthanc) -> bool:
    try:
        return bool(orthanc.get("/system"))
    except OSError:
        return False
