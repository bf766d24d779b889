"""Other vendors' validators and readers accept every document that is built."""

from __future__ import annotations

import copy
import csv
import json
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from highdicom.sr import srread
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicomnode.errors import ReportUnbuildable
from dicomnode.sr import ReportContent, build_heatmap, build_report, heatmap_pixels, to_bytes
from tests.conftest import require_program
from tests.peers.validators import dciodvfy_errors, pixelmed_errors_of
from tests.unit.sr.examples import REFUSAL, content, evaluated, header, heatmap_content

JAPANESE = "Yamada^Tarou=山田^太郎=やまだ^たろう"
STUDY = "1.2.826.0.1.3680043.10.99.1"
REAL_GROUPS = ("chest", "xray", "lut", "charset")


def three() -> list[Dataset]:
    return [header(1), header(2), header(3)]


def ordered() -> Dataset:
    request = Dataset()
    request.RequestedProcedureID = "RP-1"
    other = Dataset()
    other.PatientID, other.TypeOfPatientID = "X9", "TEXT"
    return header(
        RequestAttributesSequence=[request],
        OtherPatientIDsSequence=[other],
        IssuerOfPatientID="HOSP",
        TimezoneOffsetFromUTC="+0100",
    )


VARIANTS: dict[str, ReportContent] = {
    "one image": content(),
    "three images": content(three()),
    "several versions": content(three(), [evaluated(version=2), evaluated(), evaluated(0.1)]),
    "a mixture": content(three(), [REFUSAL, evaluated(), REFUSAL]),
    "versions and a refusal": content(three(), [REFUSAL, evaluated(version=2), evaluated()]),
    "none evaluated": content(three(), [REFUSAL, REFUSAL, REFUSAL]),
    "a predecessor": content(revision=2, predecessor=(STUDY, "2.25.1002", "2.25.1000")),
    "an order, an issuer, an offset": content([ordered()]),
    "an institution": content(institution="Université", station="node-1"),
    "a Greek name": content([header(PatientName="Διονυσίου^Ελένη")]),
    "a Japanese name": content([header(PatientName=JAPANESE)]),
    "an SR in the study": content(
        [header(1), header(2, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33", Modality="SR")],
        [evaluated(), REFUSAL],
    ),
    "only an unknown SOP Class": content(
        [header(SOPClassUID="1.2.276.0.19.55.1.5.1.1.1", Modality="ZZ")], [REFUSAL]
    ),
    "many frames": content([header(SOPClassUID="1.2.840.10008.5.1.4.1.1.7.2", NumberOfFrames=9)]),
    "no identity": content(
        [header(PatientID=None, PatientName=None, PatientBirthDate=None, StudyDate=None)]
    ),
}


def test_both_validators_accept_every_variant_of_the_report(tmp_path):
    paths = {}
    for number, (name, variant) in enumerate(VARIANTS.items()):
        paths[name] = tmp_path / f"{number}.dcm"
        paths[name].write_bytes(to_bytes(build_report(variant)))
    assert {name: e for name, path in paths.items() if (e := dciodvfy_errors(path))} == {}
    judged = pixelmed_errors_of(list(paths.values()))
    assert {name: judged[path] for name, path in paths.items() if judged[path]} == {}


@pytest.mark.parametrize("name", VARIANTS)
def test_highdicom_reads_every_variant_back(name, tmp_path):
    path = tmp_path / "report.dcm"
    path.write_bytes(to_bytes(build_report(VARIANTS[name])))
    groups = srread(path).content.get_image_measurement_groups()
    assert len(groups) == len(VARIANTS[name].outcomes)


def test_a_broken_report_is_called_broken(tmp_path):
    """The judges do judge: without this, silence would prove nothing."""
    ds = build_report(content())
    ds.PatientBirthDate = "19701"
    del ds.CompletionFlag
    path = tmp_path / "iod.dcm"
    path.write_bytes(to_bytes(ds))
    assert dciodvfy_errors(path) != []

    ds = build_report(content())
    measurements = ds.ContentSequence[-1].ContentSequence[0].ContentSequence
    measurements[:] = [item for item in measurements if item.ValueType != "UIDREF"]
    observers = [i for i in ds.ContentSequence if i.ValueType == "UIDREF"]
    ds.ContentSequence.extend(copy.deepcopy(observers))
    template = tmp_path / "template.dcm"
    template.write_bytes(to_bytes(ds))
    assert pixelmed_errors_of([template])[template] != []


def test_both_validators_accept_reports_on_real_and_on_hostile_headers(shared_data, tmp_path):
    """Every file that can be read, and whose identity can be carried, gets a valid report.

    dciodvfy judges each. PixelMed judges the content tree, so one of each shape of tree
    is enough for it.
    """
    reports: dict[Path, str] = {}
    shapes: dict[str, Path] = {}
    unbuildable = []
    for number, (name, source) in enumerate(_headers(shared_data)):
        outcome = REFUSAL if number % 2 else evaluated()
        try:
            ds = build_report(content([source], [outcome]))
        except ReportUnbuildable:
            unbuildable.append(name)
            continue
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(to_bytes(ds))
        reports[path] = name
        shapes.setdefault(_shape(ds), path)
    assert len(reports) > 120
    assert len(unbuildable) < 45
    assert {reports[path]: e for path in reports if (e := dciodvfy_errors(path))} == {}
    judged = pixelmed_errors_of(list(shapes.values()))
    assert {reports[path]: errors for path, errors in judged.items() if errors} == {}


def test_every_real_radiograph_with_uids_gets_a_report(shared_data):
    with (shared_data / "dicom" / "manifest.csv").open(encoding="utf-8", newline="") as file:
        names = [row["filename"] for row in csv.DictReader(file) if row["group"] in REAL_GROUPS]
    refused = []
    for name in names:
        source = dcmread(shared_data / "dicom" / name, stop_before_pixels=True)
        try:
            build_report(content([source]))
        except ReportUnbuildable:
            refused.append(name)
    # the one says 111 for every UID, the other has no Study Instance UID
    assert sorted(refused) == ["xray_example-mg.dcm", "xray_jpeg-baseline.dcm"]


def test_dciodvfy_accepts_heatmaps_on_real_and_on_hostile_headers(shared_data, tmp_path):
    """Whatever the header, the secondary capture is valid too."""
    found = {}
    seen: set[str] = set()
    for number, (name, source) in enumerate(_headers(shared_data)):
        try:
            ds = build_heatmap(heatmap_content(source))
        except ReportUnbuildable:
            continue
        identity = "|".join(
            str(ds.get(tag, "")) for tag in ("PatientID", "PatientName", "StudyDate")
        )
        if identity in seen:
            continue
        seen.add(identity)
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(to_bytes(ds))
        found |= {name: errors} if (errors := dciodvfy_errors(path)) else {}
    assert len(seen) > 30
    assert found == {}


def test_orthanc_keeps_report_and_heatmap_in_one_study_and_draws_the_heatmap(tmp_path):
    with _orthanc(tmp_path) as url:
        report = _post(url, to_bytes(build_report(content())))
        heatmap = _post(url, to_bytes(build_heatmap(heatmap_content())))
        assert report["ParentStudy"] == heatmap["ParentStudy"]
        tags = json.loads(_get(f"{url}/instances/{report['ID']}/simplified-tags"))
        assert tags["SeriesDescription"] == "AI result - investigational, not for diagnostic use"
        assert tags["ConceptNameCodeSequence"][0]["CodeValue"] == "126000"
        with Image.open(BytesIO(_get(f"{url}/instances/{heatmap['ID']}/preview"))) as drawn:
            assert np.array_equal(np.asarray(drawn), heatmap_pixels(heatmap_content()))


@contextmanager
def _orthanc(folder: Path) -> Iterator[str]:
    program = require_program("Orthanc")
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        http, dicom = one.getsockname()[1], two.getsockname()[1]
    settings = folder / "orthanc.json"
    settings.write_text(
        json.dumps(
            {
                "HttpPort": http,
                "DicomPort": dicom,
                "StorageDirectory": str(folder / "store"),
                "IndexDirectory": str(folder / "store"),
                "AuthenticationEnabled": False,
                "RemoteAccessAllowed": False,
                "Plugins": [],
            }
        )
    )
    log = (folder / "orthanc.log").open("wb")
    with log, subprocess.Popen([program, str(settings)], stdout=log, stderr=log) as process:
        try:
            url = f"http://127.0.0.1:{http}"
            _await(url, process, folder / "orthanc.log")
            yield url
        finally:
            process.terminate()
            process.wait(timeout=30)


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        try:
            _get(f"{url}/system")
        except (urllib.error.URLError, ConnectionError):
            assert process.poll() is None, log.read_text()[-2000:]
            Event().wait(0.1)
        else:
            return
    pytest.fail(f"Orthanc did not answer: {log.read_text()[-2000:]}")


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return bytes(answer.read())


def _post(url: str, data: bytes) -> dict[str, str]:
    request = urllib.request.Request(f"{url}/instances", data=data, method="POST")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return dict(json.load(answer))


def _headers(shared_data: Path) -> Iterator[tuple[str, Dataset]]:
    for folder in ("dicom", "dicom-hostile"):
        for path in sorted((shared_data / folder).glob("*.dcm")):
            try:
                yield path.name, dcmread(path, stop_before_pixels=True)
            except Exception:  # noqa: BLE001 - what cannot be read at all is never reported
                continue


def _shape(ds: Dataset) -> str:
    """The content tree without its values."""
    children = ",".join(_shape(child) for child in ds.get("ContentSequence", []))
    concept = ds.ConceptNameCodeSequence[0].CodeValue
    return f"{ds.get('RelationshipType', '')}:{ds.ValueType}:{concept}({children})"
