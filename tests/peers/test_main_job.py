"""DCMTK pushes real radiographs, Orthanc receives the reports, other vendors judge them."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from highdicom.sr import Comprehensive3DSR, srread
from pydicom import Dataset, dcmread

from dicomnode.testing.model_servers import FakeModelServer
from tests.acceptance.node import RunningNode, until
from tests.conftest import require_program
from tests.peers.orthanc import running_orthanc
from tests.peers.validators import dciodvfy_errors, pixelmed_errors_of

PROPOSING = {
    "1.2.840.10008.1.2": "-xi",
    "1.2.840.10008.1.2.1": "-xe",
    "1.2.840.10008.1.2.2": "-xb",
    "1.2.840.10008.1.2.1.99": "-xd",
    "1.2.840.10008.1.2.4.50": "-xy",
    "1.2.840.10008.1.2.4.51": "-xx",
    "1.2.840.10008.1.2.4.57": "-xs",
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.81": "-xu",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.4.91": "-xw",
    "1.2.840.10008.1.2.5": "-xr",
}
"""storescu's option for each transfer syntax."""

EVALUATED = {
    "chest_1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm",
    "chest_966_fixed.dcm",
    "chest_Monochrome1-Jpeg.dcm",
    "chest_RG1_J2KI.dcm",
    "chest_RG1_JLSN.dcm",
    "chest_gdcm-CR-MONO1-10-chest.dcm",
}
REFUSED = {
    "chest_dx_image.dcm": "species",
    "chest_DX16raw_J2KLossless.dcm": "contrast",
    "xray_RG2_J2KR.dcm": "body_part",
    "xray_RG3_JPLL.dcm": "body_part",
    "xray_RG3_RLE.dcm": "body_part",
    "xray_RG3_JPLY.dcm": "body_part",
    "xray_XA1_JPLY.dcm": "modality",
    "ts_1.2.840.10008.1.2.4.70.dcm": "localizer",
    "ts_image_dfl.dcm": "modality",
    "lut_vlut_04.dcm": "modality",
    "ts_1.2.840.10008.1.2.5.dcm": "modality",
}


@dataclass
class Outcome:
    """What the PACS holds after everything was pushed."""

    sources: dict[str, Dataset]
    """Headers of the pushed files by file name."""
    reports: dict[str, list[Path]]
    """By Study Instance UID."""
    heatmaps: dict[str, list[Path]]
    facts: dict[str, dict[str, Any]]
    """The node's JSON report by Study Instance UID."""


@pytest.fixture(scope="module")
def outcome(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    storescu = require_program("storescu", path="/usr/bin")
    folder = tmp_path_factory.mktemp("main-job")
    names = sorted(EVALUATED | REFUSED.keys())
    sources = {
        name: dcmread(shared_data / "dicom" / name, stop_before_pixels=True) for name in names
    }
    with (
        FakeModelServer(version=3) as model_server,
        running_orthanc(folder / "orthanc") as orthanc,
        RunningNode(
            folder,
            targets=[model_server.target],
            pacs_port=orthanc.port,
            idle_seconds=3.0,
            versions=(3,),
            sop_classes=("1.2.840.10008.5.1.4.1.1.2",),
        ) as node,
    ):
        node.wait_ready()
        for name, header in sources.items():
            option = PROPOSING[header.file_meta.TransferSyntaxUID]
            command = [storescu, option, "-aet", "XRAY1", "-aec", "DICOMNODE"]
            command += ["127.0.0.1", str(node.port), str(shared_data / "dicom" / name)]
            pushed = subprocess.run(
                command, capture_output=True, text=True, timeout=60, check=False
            )
            assert pushed.returncode == 0, (name, pushed.stderr)
        studies = {str(header.StudyInstanceUID) for header in sources.values()}
        until(
            lambda: all(node.get(f"/api/studies/{s}")[1].get("state") == "done" for s in studies),
            seconds=90,
            what="every study is done",
        )
        yield Outcome(
            sources=sources,
            reports=fetched(orthanc, "SR", folder),
            heatmaps=fetched(orthanc, "OT", folder),
            facts={s: node.get(f"/api/studies/{s}/report")[1] for s in studies},
        )


def fetched(orthanc: Any, modality: str, folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for study, instances in orthanc.documents(modality).items():
        for instance in instances:
            path = folder / f"{instance}.dcm"
            path.write_bytes(orthanc.file(instance))
            found.setdefault(study, []).append(path)
    return found


def test_the_pacs_holds_one_report_per_study_and_one_heatmap_per_eligible_study(
    outcome: Outcome,
) -> None:
    studies = {str(header.StudyInstanceUID) for header in outcome.sources.values()}
    eligible = {str(outcome.sources[name].StudyInstanceUID) for name in EVALUATED}
    assert {study: len(paths) for study, paths in outcome.reports.items()} == dict.fromkeys(
        studies, 1
    )
    assert {study: len(paths) for study, paths in outcome.heatmaps.items()} == dict.fromkeys(
        eligible, 1
    )


def test_what_is_not_a_frontal_chest_radiograph_is_not_evaluated_and_says_why(
    outcome: Outcome,
) -> None:
    said = {
        image["sop_instance_uid"]: image
        for facts in outcome.facts.values()
        for image in facts["images"]
    }
    for name, header in outcome.sources.items():
        image = said[str(header.SOPInstanceUID)]
        assert image["evaluated"] is (name in EVALUATED), (name, image)
        if name in REFUSED:
            assert image["reason"] == REFUSED[name], (name, image)
            assert "probability" not in image


def test_every_report_passes_both_validators_and_highdicom_reads_it(outcome: Outcome) -> None:
    paths = [path for reports in outcome.reports.values() for path in reports]
    for path in paths:
        assert dciodvfy_errors(path) == []
        assert isinstance(srread(path), Comprehensive3DSR)
    assert pixelmed_errors_of(paths) == {path: [] for path in paths}
    for maps in outcome.heatmaps.values():
        for path in maps:
            assert dciodvfy_errors(path) == []


def test_every_report_belongs_to_the_patient_of_its_images(outcome: Outcome) -> None:
    by_study = {str(header.StudyInstanceUID): header for header in outcome.sources.values()}
    for documents in (outcome.reports, outcome.heatmaps):
        for study, paths in documents.items():
            for path in paths:
                document = dcmread(io.BytesIO(path.read_bytes()))
                assert document.PatientID == (by_study[study].get("PatientID") or "")
                assert document.StudyInstanceUID == study


def test_evaluated_reports_name_the_version_that_answered(outcome: Outcome) -> None:
    for facts in outcome.facts.values():
        for image in facts["images"]:
            if image["evaluated"]:
                assert image["model"]["version"] == 3
                document = dcmread(outcome.reports[facts["study_instance_uid"]][0])
                assert image["model"]["device_uid"] in str(document)
