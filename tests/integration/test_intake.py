"""Between a C-STORE-RQ and its response: on the real store."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from dicomnode.config import StorageSettings
from dicomnode.findings import NotEvaluated, Reason
from dicomnode.intake import Intake
from dicomnode.jobs import JobKind
from dicomnode.metrics import Metrics
from dicomnode.ports import ReportPlan
from dicomnode.sr import DOCUMENT_CLASSES
from dicomnode.storage import Storage, open_storage
from dicomnode.testing.stores import received_instance

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[Storage]:
    opened = open_storage(StorageSettings(root=tmp_path / "var", minimum_free_bytes=0))
    yield opened
    opened.close()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


@pytest.fixture
def intake(storage: Storage, metrics: Metrics) -> Intake:
    return Intake(
        files=storage.files,
        index=storage.index,
        clock=lambda: NOW,
        metrics=metrics,
        idle_seconds=5.0,
    )


def count(metrics: Metrics, outcome: str) -> float:
    value = metrics.registry.get_sample_value(
        "dicomnode_instances_received_total", {"calling_ae": "XRAY1", "outcome": outcome}
    )
    return value or 0.0


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_new_instance_is_kept_indexed_and_queued(
    storage: Storage, intake: Intake, metrics: Metrics
) -> None:
    received = received_instance(storage.files.incoming)
    assert intake.accept(received) == 0x0000
    held = storage.index.lookup(received.sop_instance_uid)
    assert held is not None
    assert storage.files.absolute(held.path).is_file()
    assert {job.kind.value for job in storage.queue.jobs()} == {"analyse", "report"}
    assert files_below(storage.files.incoming) == []
    assert count(metrics, "stored") == 1


def test_the_same_instance_again_is_acknowledged_and_changes_nothing(
    storage: Storage, intake: Intake, metrics: Metrics
) -> None:
    for _ in range(2):
        received = received_instance(storage.files.incoming)
        assert intake.accept(received) == 0x0000
    assert len(files_below(storage.files.root / "instances")) == 1
    assert len(storage.queue.jobs()) == 2
    assert files_below(storage.files.incoming) == []
    assert count(metrics, "duplicate") == 1


def test_other_content_under_a_known_uid_is_kept_aside_and_never_overwrites(
    storage: Storage, intake: Intake, metrics: Metrics
) -> None:
    first = received_instance(storage.files.incoming, content=b"first")
    intake.accept(first)
    held = storage.index.lookup(first.sop_instance_uid)
    assert held is not None
    before = storage.files.absolute(held.path).read_bytes()
    for _ in range(2):
        other = received_instance(storage.files.incoming, content=b"other")
        assert intake.accept(other) == 0x0000
    assert storage.files.absolute(held.path).read_bytes() == before
    assert files_below(storage.files.root / "instances") == [storage.files.absolute(held.path)]
    (aside,) = files_below(storage.files.root / "conflicts")
    assert b"other" in aside.read_bytes()
    assert storage.index.named_paths([str(aside.relative_to(storage.files.root))])
    assert storage.index.lookup(first.sop_instance_uid) == held
    assert count(metrics, "conflict") == 2


@pytest.mark.parametrize("sop_class_uid", sorted(DOCUMENT_CLASSES))
def test_a_document_of_ours_that_comes_back_under_another_manufacturer_makes_no_job(
    storage: Storage, intake: Intake, sop_class_uid: str
) -> None:
    """Some archives rewrite Manufacturer: then its UID tells that it is ours."""
    intake.accept(received_instance(storage.files.incoming))
    document = report_of_the_only_study(storage).report
    jobs = [job.id for job in storage.queue.jobs()]
    returned = received_instance(
        storage.files.incoming, sop=document.sop_instance_uid, content=b"rewritten"
    )
    assert intake.accept(replace(returned, sop_class_uid=sop_class_uid)) == 0x0000
    assert storage.index.lookup(document.sop_instance_uid) is not None
    assert [job.id for job in storage.queue.jobs()] == jobs


def report_of_the_only_study(storage: Storage) -> ReportPlan:
    numbers = itertools.count(1)
    (analyse,) = storage.queue.claim(JobKind.ANALYSE, owner="w", now=NOW, lease_seconds=60)
    refused = NotEvaluated(reason=Reason.VIEW, detail="found LATERAL, expected AP or PA")
    storage.index.record_outcome(analyse, refused, now=NOW)
    later = NOW + timedelta(minutes=1)
    (report,) = storage.queue.claim(JobKind.REPORT, owner="w", now=later, lease_seconds=60)
    plan = storage.index.plan_report(report, now=later, new_uid=lambda: f"2.25.{next(numbers)}")
    assert plan is not None
    return plan


def test_a_full_disk_is_answered_with_a700_and_nothing_is_kept(
    tmp_path: Path, metrics: Metrics
) -> None:
    storage = open_storage(StorageSettings(root=tmp_path / "var", minimum_free_bytes=10**18))
    intake = Intake(
        files=storage.files,
        index=storage.index,
        clock=lambda: NOW,
        metrics=metrics,
        idle_seconds=5.0,
    )
    received = received_instance(storage.files.incoming)
    assert intake.accept(received) == 0xA700
    assert files_below(storage.files.incoming) == []
    assert storage.index.lookup(received.sop_instance_uid) is None
    assert count(metrics, "out_of_resources") == 1
    storage.close()
