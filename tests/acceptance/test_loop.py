"""The main job: a study that is pushed comes back to the PACS as a report and a heatmap."""

from __future__ import annotations

import json
from pathlib import Path

from pydicom import dcmread

from dicomnode.testing.model_servers import FakeModelServer
from dicomnode.testing.pacs import ReceivingPacs
from dicomnode.testing.phantoms import part10_bytes, phantom_dataset
from tests.acceptance.conftest import MakePhantom, push
from tests.acceptance.node import RunningNode, until


def test_a_pushed_study_comes_back_as_one_report_and_one_heatmap(
    node: RunningNode, pacs: ReceivingPacs, phantom: MakePhantom
) -> None:
    study, path = phantom(0)
    assert push(node, path) == [0x0000]
    assert pacs.wait_for(lambda p: len(p.received) == 2, 20)
    (report,), (heatmap,) = pacs.reports, pacs.heatmaps
    original = dcmread(path)
    for document in (report, heatmap):
        assert document.StudyInstanceUID == study
        assert document.PatientID == original.PatientID
        assert document.PatientName == original.PatientName
    assert "investigational" in report.SeriesDescription


def test_the_report_names_the_version_that_really_answered(
    node: RunningNode, pacs: ReceivingPacs, model_server: FakeModelServer, phantom: MakePhantom
) -> None:
    """Version 2 is served although version 3 has a card already."""
    node.publish_card(2)
    node.publish_card(3)
    model_server.version = 2
    study, path = phantom(1)
    assert push(node, path) == [0x0000]
    assert pacs.wait_for(lambda p: len(p.reports) == 1, 20)
    text = str(pacs.reports[0])
    _, report = node.get(f"/api/studies/{study}/report")
    model = report["images"][0]["model"]
    assert model["version"] == 2
    assert model["device_uid"] in text


def test_a_study_sent_twice_is_acknowledged_twice_and_reported_once(
    node: RunningNode, pacs: ReceivingPacs, phantom: MakePhantom
) -> None:
    _, path = phantom(2)
    assert push(node, path, path) == [0x0000, 0x0000]
    assert pacs.wait_for(lambda p: len(p.received) == 2, 20)
    assert push(node, path) == [0x0000]
    _, following = phantom(3)
    assert push(node, following) == [0x0000]
    assert pacs.wait_for(lambda p: len(p.received) == 4, 20)
    assert len(pacs.reports) == 2


def test_a_late_image_makes_a_new_report_that_names_its_predecessor(
    node: RunningNode, pacs: ReceivingPacs, tmp_path: Path
) -> None:
    first = phantom_dataset(1, True, rows=320, columns=320)
    study = str(first.StudyInstanceUID)
    late = phantom_dataset(
        1, True, rows=320, columns=320, instance_number=2, study_instance_uid=study
    )
    paths = []
    for name, dataset in (("first", first), ("late", late)):
        paths.append(tmp_path / f"{name}.dcm")
        paths[-1].write_bytes(part10_bytes(dataset))
    assert push(node, paths[0]) == [0x0000]
    assert pacs.wait_for(lambda p: len(p.reports) == 1, 20)
    assert push(node, paths[1]) == [0x0000]
    assert pacs.wait_for(lambda p: len(p.reports) == 2 and len(p.heatmaps) == 2, 20)
    before, after = pacs.reports
    named = after.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
    assert named.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == before.SOPInstanceUID
    assert {str(h.StudyInstanceUID) for h in pacs.heatmaps} == {study}


def test_our_own_heatmap_coming_back_makes_no_second_report(
    node: RunningNode, pacs: ReceivingPacs, phantom: MakePhantom, tmp_path: Path
) -> None:
    """A PACS that routes everything to the node must not start a loop."""
    study, path = phantom(4)
    push(node, path)
    assert pacs.wait_for(lambda p: len(p.heatmaps) == 1 and len(p.reports) == 1, 20)
    returned = tmp_path / "heatmap.dcm"
    pacs.heatmaps[0].save_as(returned, enforce_file_format=True)
    assert push(node, returned) == [0x0000]
    later, following = phantom(5)
    push(node, following)
    # the heatmap came first: a report that it caused would be here before this one
    assert pacs.wait_for(lambda p: later in {str(ds.StudyInstanceUID) for ds in p.reports}, 20)
    assert len(pacs.reports) == 2
    assert node.get(f"/api/studies/{study}")[1]["revision"] == 1


def test_commands_and_api_tell_the_same(
    node: RunningNode, pacs: ReceivingPacs, phantom: MakePhantom
) -> None:
    study, path = phantom(6)
    push(node, path)
    assert pacs.wait_for(lambda p: len(p.received) == 2, 20)
    until(
        lambda: node.get(f"/api/studies/{study}")[1]["state"] == "done",
        seconds=10,
        what="the study is done",
    )
    listed = node.run("studies", "list", "--json")
    assert json.loads(listed.stdout) == node.get("/api/studies")[1]
    shown = node.run("studies", "show", study)
    assert json.loads(shown.stdout) == node.get(f"/api/studies/{study}")[1]
    reported = node.run("report", study, "--json")
    assert json.loads(reported.stdout) == node.get(f"/api/studies/{study}/report")[1]
    readable = node.run("report", study)
    assert "investigational" in readable.stdout.lower()
    assert node.get("/api/studies/1.2.3")[0] == 404
    assert node.run("report", "1.2.3").returncode == 1


def test_neither_logs_nor_metrics_nor_api_hold_patient_data(
    node: RunningNode, pacs: ReceivingPacs, phantom: MakePhantom
) -> None:
    study, path = phantom(7)
    push(node, path)
    assert pacs.wait_for(lambda p: len(p.received) == 2, 20)
    dataset = dcmread(path, stop_before_pixels=True)
    secrets = [str(dataset.PatientID), str(dataset.PatientName), str(dataset.PatientBirthDate)]
    told = "\n".join(
        [
            node.log.read_text(),
            node.get("/metrics")[1],
            json.dumps(node.get("/api/studies")[1]),
            json.dumps(node.get(f"/api/studies/{study}")[1]),
            json.dumps(node.get(f"/api/studies/{study}/report")[1]),
        ]
    )
    assert study in told
    for secret in filter(None, secrets):
        assert secret not in told


def test_the_node_stops_in_an_orderly_way(node: RunningNode, phantom: MakePhantom) -> None:
    _, path = phantom(8)
    push(node, path)
    assert node.stop() == 0
    assert node.events()[-1]["event"] == "node.stopped"
