"""The node's store as training data."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from dicomnode.config import StorageSettings
from dicomnode.findings import NotEvaluated, Reason
from dicomnode.jobs import JobKind
from dicomnode.storage import Storage
from dicomnode.testing.phantoms import part10_bytes, phantom_dataset
from dicomnode.testing.stores import opened_store, store_settings
from tests.integration.test_labels import NOW, accept
from trainer import data
from trainer.data.store import StoredCase, snapshot, store_cases, stored_films
from trainer.errors import DataError


def film(seed: int, **elements: Any) -> Dataset:
    """A small phantom that the gate lets pass, with some elements changed (None: removed)."""
    ds = phantom_dataset(seed, seed % 2 == 1, rows=256, columns=256)
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
        if value is None:
            delattr(ds, keyword)
    return ds


def push(storage: Storage, ds: Dataset, **facts: Any) -> str:
    accept(
        storage,
        sop=str(ds.SOPInstanceUID),
        series=str(ds.SeriesInstanceUID),
        study=str(ds.StudyInstanceUID),
        content=part10_bytes(ds),
        **facts,
    )
    return str(ds.SOPInstanceUID)


def label(storage: Storage, ds: Dataset, name: str, *, image: bool = False) -> None:
    storage.labels.record(
        name,
        study_instance_uid=str(ds.StudyInstanceUID),
        sop_instance_uid=str(ds.SOPInstanceUID) if image else "",
        source="ris",
        author="Dr. Ruiz",
        labelled_at=NOW,
    )


def push_labelled(storage: Storage, ds: Dataset, name: str = "positive", **facts: Any) -> str:
    uid = push(storage, ds, **facts)
    label(storage, ds, name)
    return uid


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> StorageSettings:
    return store_settings(tmp_path / "store", database_url=database_url)


@pytest.fixture
def node(settings: StorageSettings) -> Iterator[Storage]:
    """A store that is open, as a running node holds it, all the time."""
    url = settings.database_url.get_secret_value()
    with opened_store(settings.root, database_url=url) as storage:
        yield storage


def sqlite(tmp_path: Path) -> StorageSettings:
    return store_settings(tmp_path / "store")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Storage]:
    with opened_store(tmp_path / "store") as storage:
        yield storage


def test_labelled_films_are_cases_beside_a_running_node(
    node: Storage, settings: StorageSettings
) -> None:
    first, second, third, unlabelled = (film(seed) for seed in range(4))
    for ds in (first, second, third, unlabelled):
        push(node, ds)
    label(node, first, "negative")
    label(node, second, "positive", image=True)
    label(node, third, "negative")
    label(node, third, "positive", image=True)
    cases = store_cases(settings)
    assert [case.name for case in cases] == sorted(case.sop_instance_uid for case in cases)
    by_uid = {case.sop_instance_uid: case for case in cases}
    assert {uid: case.label for uid, case in by_uid.items()} == {
        str(first.SOPInstanceUID): "negative",
        str(second.SOPInstanceUID): "positive",
        str(third.SOPInstanceUID): "positive",
    }
    case = by_uid[str(first.SOPInstanceUID)]
    assert case.path.is_absolute()
    assert case.path.read_bytes() == part10_bytes(first)
    assert case.study_instance_uid == first.StudyInstanceUID
    assert (case.source, case.view) == ("XRAY1 / chest phantom", "PA")
    assert (case.label_source, case.label_author, case.labelled_at) == ("ris", "Dr. Ruiz", NOW)


def test_what_the_model_may_not_judge_is_left_out_with_the_reason(
    store: Storage, tmp_path: Path
) -> None:
    kept = push_labelled(store, film(0))
    reasons: dict[str, str] = {}
    for seed, (changed, told) in enumerate(
        [
            ({"ViewPosition": "LL"}, "View Position"),
            ({"Manufacturer": "dicomnode"}, "made by this program"),
            ({"Rows": 20}, "20 Rows"),
            ({"Modality": "CT"}, "Modality: CT"),
        ],
        start=1,
    ):
        reasons[push_labelled(store, film(seed, **changed))] = told
    push_labelled(store, film(10), own_product=False)
    own = film(11)
    push(store, own, own_product=True)
    label(store, own, "positive")
    twice = film(12)
    reasons[push_labelled(store, twice)] = "came with two contents"
    twice.KVP = "80"
    push(store, twice)
    films = stored_films(sqlite(tmp_path))
    assert kept in {case.name for case in films.cases}
    assert len(films.cases) == 2
    found = {skipped.name: skipped.reason for skipped in films.skipped}
    assert found.keys() == reasons.keys()
    for uid, told in reasons.items():
        assert told in found[uid]


@pytest.mark.parametrize(
    ("reason", "kept"),
    [
        (Reason.CONTRAST, False),
        (Reason.APPEARANCE, False),
        (Reason.UNDECODABLE, False),
        (Reason.INFERENCE_FAILED, True),  # says nothing about the film
        (Reason.VIEW, True),  # the header is asked again, with the rules of today
    ],
)
def test_a_refusal_by_the_pixels_is_taken_from_the_node(
    store: Storage, tmp_path: Path, reason: Reason, kept: bool
) -> None:
    uid = push_labelled(store, film(1))
    (job,) = store.queue.claim(JobKind.ANALYSE, owner="w", now=NOW, lease_seconds=60)
    store.index.record_outcome(job, NotEvaluated(reason=reason, detail="because"), now=NOW)
    films = stored_films(sqlite(tmp_path))
    assert [case.name for case in films.cases] == ([uid] if kept else [])
    assert len(films.skipped) == (not kept)


def test_files_that_cannot_be_read_are_left_out_and_named(store: Storage, tmp_path: Path) -> None:
    gone, broken, kept = film(1), film(2), film(3)
    for ds in (gone, broken, kept):
        push_labelled(store, ds)
    for ds, change in ((gone, Path.unlink), (broken, lambda path: path.write_bytes(b"x" * 400))):
        held = store.index.lookup(str(ds.SOPInstanceUID))
        assert held is not None
        change(store.files.absolute(held.path))
    films = stored_films(sqlite(tmp_path))
    assert [case.name for case in films.cases] == [str(kept.SOPInstanceUID)]
    assert {skipped.name for skipped in films.skipped} == {
        str(gone.SOPInstanceUID),
        str(broken.SOPInstanceUID),
    }


def test_patients_are_told_apart_without_being_named(store: Storage, tmp_path: Path) -> None:
    """A patient whose films come from two devices, one of which writes the issuer."""
    films = {
        "one": film(1, PatientID="Pat-77"),
        "same": film(3, PatientID="PAT-77 ", IssuerOfPatientID="HIS"),
        "other": film(5, PatientID="PAT-78"),
        "none": film(7, PatientID=""),
        "nobody": film(9, PatientID=None),
    }
    for ds in films.values():
        push_labelled(store, ds)
    cases = {case.name: case for case in store_cases(sqlite(tmp_path))}
    patient = {key: cases[str(ds.SOPInstanceUID)].patient for key, ds in films.items()}
    assert patient["one"] == patient["same"]
    assert len(set(patient.values())) == 4
    assert not any("PAT-77" in repr(case).upper() for case in cases.values())
    again = {case.name: case.patient for case in store_cases(sqlite(tmp_path))}
    assert again == {name: case.patient for name, case in cases.items()}
    with opened_store(tmp_path / "other" / "store") as other:
        push_labelled(other, films["one"])
        (elsewhere,) = store_cases(store_settings(tmp_path / "other" / "store"))
    assert elsewhere.patient != patient["one"]


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS:UserWarning")  # that is the point
@pytest.mark.parametrize(
    ("elements", "source", "view"),
    [
        ({"ManufacturerModelName": None}, "XRAY1 / phantom generator", "PA"),
        ({"ManufacturerModelName": "", "Manufacturer": None}, "XRAY1", "PA"),
        ({"ManufacturerModelName": "Müller <b>", "Manufacturer": "a;b"}, "XRAY1", "PA"),
        ({"ViewPosition": None}, "XRAY1 / chest phantom", ""),
        ({"ViewPosition": "ap"}, "XRAY1 / chest phantom", "AP"),
        ({"ViewPosition": "Mrs. Doe"}, "XRAY1 / chest phantom", ""),
    ],
)
def test_source_and_view_are_what_the_header_says_in_coded_words(
    store: Storage, tmp_path: Path, elements: dict[str, Any], source: str, view: str
) -> None:
    push_labelled(store, film(1, **elements))
    (case,) = store_cases(sqlite(tmp_path))
    assert (case.source, case.view) == (source, view)


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no store at"):
        store_cases(store_settings(tmp_path / "typo"))
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- snapshots


@pytest.fixture
def cases(store: Storage, tmp_path: Path) -> tuple[StoredCase, ...]:
    for seed in range(1, 5):
        push_labelled(store, film(seed), "positive" if seed % 2 else "negative")
    return store_cases(sqlite(tmp_path))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_snapshot_is_a_manifest_that_gives_the_same_cases(
    cases: tuple[StoredCase, ...], tmp_path: Path
) -> None:
    path = snapshot(cases, tmp_path / "runs" / "1" / "snapshot.csv")
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["snapshot.csv"]
    read = data.read_cases(path)
    assert len(read) == 4
    for case, before, row in zip(read, cases, rows(path), strict=True):
        for name in ("path", "name", "label", "patient", "source", "view"):
            assert getattr(case, name) == getattr(before, name)
        assert case.sop_instance_uid == before.sop_instance_uid
        assert case.study_instance_uid == before.study_instance_uid
        assert case.sha256 == hashlib.sha256(before.path.read_bytes()).hexdigest()
        assert row["label_author"] == "Dr. Ruiz"
        assert row["labelled_at"] == NOW.isoformat()
    assert "PHANTOM" not in path.read_text()


def test_a_snapshots_films_can_be_loaded(cases: tuple[StoredCase, ...], tmp_path: Path) -> None:
    path = snapshot(cases, tmp_path / "snapshot.csv")
    films = data.load(data.read_cases(path), "unit-rgb-224/1")
    assert films.skipped == ()
    assert films.tensors.shape == (4, 224, 224, 3)
    assert list(films.digests) == [row["sha256"] for row in rows(path)]


def test_a_snapshot_reads_only_what_the_one_before_did_not(
    cases: tuple[StoredCase, ...], tmp_path: Path
) -> None:
    first = snapshot(cases[:3], tmp_path / "first.csv")
    known = {row["sop_instance_uid"]: row["sha256"] for row in rows(first)}
    for case in cases[:3]:
        case.path.chmod(0o000)
        case.path.rename(case.path.with_suffix(".away"))
    second = snapshot(cases, tmp_path / "second.csv", previous=first)
    digests = {row["sop_instance_uid"]: row["sha256"] for row in rows(second)}
    assert known.items() <= digests.items()
    assert len(digests) == 4


def test_a_snapshot_that_fails_leaves_nothing(
    cases: tuple[StoredCase, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    cases[2].path.unlink()
    with pytest.raises(DataError, match=f"cannot read {cases[2].name}"):
        snapshot(cases, folder / "snapshot.csv")
    assert list(folder.iterdir()) == []
    with pytest.raises(DataError, match="is no snapshot"):
        snapshot(cases[:1], folder / "snapshot.csv", previous=tmp_path / "none.csv")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write"):
        snapshot(cases[:1], tmp_path / "file" / "snapshot.csv")


def test_a_snapshot_of_other_films_names_no_patient(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"not read here")
    case = data.Case(path=tmp_path / "a.png", name="a.png", label="positive", patient="PAT-77")
    path = snapshot([case], tmp_path / "snapshot.csv")
    assert "PAT-77" not in path.read_text()
    (row,) = rows(path)
    assert (row["path"], row["label_source"]) == (str(tmp_path / "a.png"), "")


def test_every_header_is_read_once(
    cases: tuple[StoredCase, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dicomnode.storage.files import PartTenFiles

    read: list[str] = []
    real: Callable[..., Dataset] = PartTenFiles.read_header

    def counted(self: PartTenFiles, relative: str) -> Dataset:
        read.append(relative)
        return real(self, relative)

    monkeypatch.setattr(PartTenFiles, "read_header", counted)
    path = snapshot(store_cases(sqlite(tmp_path)), tmp_path / "snapshot.csv")
    assert len(data.read_cases(path)) == 4
    assert len(read) == len(set(read)) == 4
