"""Malformed files, pushed or given to `infer`: each gets a status or a dead letter that
names the reason, the node stays up and bounded, other studies go on."""

from __future__ import annotations

import collections
import json
import re
from pathlib import Path

from dicomnode.jobs import JobKind, JobState
from dicomnode.ports import StoredInstance
from dicomnode.testing.model_servers import FakeModelServer
from dicomnode.testing.pacs import ReceivingPacs
from dicomnode.testing.senders import push_file, split_file
from tests.acceptance.conftest import MakePhantom, push
from tests.acceptance.node import RunningNode, until

GROWTH_BYTES = 150_000_000
STATUSES = {0x0000, 0xA900, 0xC000}


def sop_classes(files: list[Path]) -> tuple[str, ...]:
    """Every SOP class that the files claim, so that the node receives them all."""
    found = set()
    for path in files:
        meta, _ = split_file(path.read_bytes())
        claimed = meta.get(0x0002, b"").rstrip(b"\0 ").decode("latin-1")
        if re.fullmatch(r"1\.2\.840\.10008[0-9.]{1,40}[0-9]", claimed):
            found.add(claimed)
    return tuple(sorted(found))


def test_every_hostile_file_gets_a_status_or_a_dead_letter_that_names_the_reason(
    shared_data: Path,
    tmp_path: Path,
    pacs: ReceivingPacs,
    model_server: FakeModelServer,
    phantom: MakePhantom,
    capsys,
) -> None:
    files = sorted((shared_data / "dicom-hostile").glob("*.dcm"))
    assert len(files) > 100
    classes = sop_classes(files)
    node = RunningNode(
        tmp_path, targets=[model_server.target], pacs_port=pacs.port, sop_classes=classes
    )
    with node:
        node.wait_ready()
        assert push(node, phantom(40)[1]) == [0x0000]
        assert pacs.wait_for(lambda p: len(p.received) == 2, 20)
        before = node.resident_bytes()
        answers = {
            path.name: push_file(
                "127.0.0.1", node.port, path, accepted=classes, calling_ae_title="XRAY1"
            )
            for path in files
        }
        unanswered = {n: a for n, a in answers.items() if a not in STATUSES}
        assert unanswered == {}
        until(lambda: _settled(node), seconds=120, what="every job is settled")
        assert push(node, phantom(41)[1]) == [0x0000]
        healthy = phantom(41)[0]
        assert pacs.wait_for(
            lambda p: healthy in {str(ds.StudyInstanceUID) for ds in p.reports}, 20
        )
        assert node.process is not None
        assert node.process.poll() is None
        assert node.resident_bytes() - before < GROWTH_BYTES
        assert node.get("/healthz")[0] == 200
        verdicts = _verdicts(node)
    with capsys.disabled():
        statuses = collections.Counter(f"0x{a:04X}" for a in answers.values())
        print(f"\n{len(files)} hostile files: {dict(statuses)}; then {dict(verdicts)}")


def _settled(node: RunningNode) -> bool:
    storage = node.opened()
    try:
        counts = storage.queue.counts()
    finally:
        storage.close()
    return not counts.get(JobState.QUEUED, 0) and not counts.get(JobState.RUNNING, 0)


def _verdicts(node: RunningNode) -> collections.Counter[str]:
    """What became of each stored file; every dead letter says why in so many words."""
    storage = node.opened()
    try:
        failed = storage.queue.jobs(state=JobState.FAILED, limit=10_000)
        verdicts: collections.Counter[str] = collections.Counter()
        for study in storage.index.studies(limit=10_000):
            for instance, outcome in storage.index.outcomes(study.study_instance_uid):
                assert isinstance(instance, StoredInstance)
                assert outcome is not None
                verdicts[getattr(getattr(outcome, "reason", None), "value", "evaluated")] += 1
    finally:
        storage.close()
    for job in failed:
        assert job.last_error
        assert job.error_code not in ("unforeseen", None), job.last_error
    analysed = [job for job in failed if job.kind is JobKind.ANALYSE]
    assert len(analysed) == verdicts["undecodable"] + verdicts["inference_failed"]
    return verdicts


def test_infer_answers_for_every_hostile_file_in_one_run(
    shared_data: Path, tmp_path: Path, model_server: FakeModelServer
) -> None:
    folder = shared_data / "dicom-hostile"
    node = RunningNode(tmp_path, targets=[model_server.target], pacs_port=None)
    run = node.run("infer", str(folder), "--json")
    answers = [json.loads(line) for line in run.stdout.splitlines()]
    files = {str(path) for path in folder.iterdir() if path.is_file()}
    assert {answer["file"] for answer in answers} == files
    assert run.returncode == 1, run.stderr
    assert "Traceback" not in run.stderr
    for answer in answers:
        if "error" in answer:
            assert answer["detail"], answer
            assert answer["error"] not in ("error", "permanent"), answer
        else:
            assert all(image["evaluated"] or image["reason"] for image in answer["images"])
    assert not (node.folder / "var").exists(), "nothing is stored"
