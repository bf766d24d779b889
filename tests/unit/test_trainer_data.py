"""Training data: found, parted by patient, prepared as the node prepares it."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dicomnode.imaging import preprocess, reading
from dicomnode.testing.phantoms import part10_bytes, phantom_dataset, write_training_folder
from trainer import data
from trainer.errors import DataError

PROFILE = "unit-rgb-224/1"


def cases_of(patients: dict[str, list[str]]) -> list[data.Case]:
    return [
        data.Case(path=Path(), name=f"{patient}-{number}", label=label, patient=patient)
        for patient, labels in patients.items()
        for number, label in enumerate(labels)
    ]


def many() -> list[data.Case]:
    patients = {f"p{n}": ["positive"] * (1 + n % 3) for n in range(30)}
    patients |= {f"n{n}": ["negative"] * (1 + n % 2) for n in range(40)}
    patients |= {f"b{n}": ["positive", "negative"] for n in range(10)}
    return cases_of(patients)


def split(cases, seed=42):
    return data.split(cases, test_fraction=0.2, validation_fraction=0.2, seed=seed)


def test_no_patient_is_in_two_parts():
    cases = many()
    parts = split(cases)
    patients = [
        {cases[i].patient for i in part} for part in (parts.training, parts.validation, parts.test)
    ]
    assert not patients[0] & patients[1]
    assert not patients[0] & patients[2]
    assert not patients[1] & patients[2]


def test_every_film_is_in_one_part():
    cases, parts = many(), split(many())
    films = np.concatenate([parts.training, parts.validation, parts.test])
    assert sorted(films) == list(range(len(cases)))


def test_the_parts_hold_both_labels_in_like_shares():
    cases, parts = many(), split(many())
    overall = np.mean([case.label == "positive" for case in cases])
    for part in (parts.training, parts.validation, parts.test):
        assert abs(np.mean([cases[i].label == "positive" for i in part]) - overall) < 0.12


def test_the_split_follows_from_the_seed_and_not_from_the_order():
    cases = many()
    names = {cases[i].name for i in split(cases).test}
    turned = cases[::-1]
    assert {turned[i].name for i in split(turned).test} == names
    assert {cases[i].name for i in split(cases, seed=1).test} != names


def test_too_few_patients_are_refused():
    with pytest.raises(DataError, match="too few"):
        split(cases_of({"a": ["positive"], "b": ["negative"]}))


def test_a_folder_per_class_is_read_without_a_manifest(tmp_path: Path):
    write_training_folder(tmp_path, 2, 1, 64)
    (tmp_path / "manifest.csv").unlink()
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x.png").write_bytes(b"")
    (tmp_path / "positive" / "notes.txt").write_text("not a film")
    cases = data.read_cases(tmp_path)
    assert [case.label for case in cases] == ["negative"] * 2 + ["positive"] * 2
    assert len({case.patient for case in cases}) == 4


def test_dicom_films_of_one_patient_belong_together(tmp_path: Path):
    write_training_folder(tmp_path, 2, 1, 64, format="dicom")
    (tmp_path / "manifest.csv").unlink()
    again = phantom_dataset(1_000_000, False, rows=64, columns=64, instance_number=2)
    (tmp_path / "negative" / "again.dcm").write_bytes(part10_bytes(again))
    cases = data.read_cases(tmp_path)
    assert len(cases) == 5
    assert len({case.patient for case in cases}) == 4


def test_a_manifest_says_whose_the_films_are(tmp_path: Path):
    write_training_folder(tmp_path, 2, 1, 64)
    cases = data.read_cases(tmp_path)
    assert all(case.patient.startswith("PHANTOM-") for case in cases)
    assert {case.source for case in cases} == {"phantoms"}


def write_manifest(folder: Path, *rows: dict[str, str]) -> None:
    with (folder / "manifest.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"filename": "../a.png", "label": "x"}, "line 2: expected a label and a filename inside"),
        ({"filename": "a.png", "label": "x"}, "line 2: there is no file a.png"),
        ({"filename": "a.png", "label": ""}, "line 2: expected a label"),
        ({"filename": "a.png"}, "no column label"),
    ],
)
def test_a_wrong_manifest_is_refused_by_line(tmp_path: Path, row, message):
    write_manifest(tmp_path, row)
    with pytest.raises(DataError, match=message):
        data.read_cases(tmp_path)


def test_a_folder_without_two_classes_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"fewer than two classes \(found: none\)"):
        data.read_cases(tmp_path)


def test_an_undecodable_film_is_named(tmp_path: Path):
    write_training_folder(tmp_path, 1, 1, 64)
    (tmp_path / "negative" / "phantom_00000.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"negative/phantom_00000\.png cannot be used"):
        data.load(data.read_cases(tmp_path), PROFILE, strict=True)


def test_films_become_what_the_node_would_send(tmp_path: Path):
    ds = phantom_dataset(3, True, rows=300, columns=280, photometric_interpretation="MONOCHROME1")
    for label in ("positive", "negative"):
        (tmp_path / label).mkdir()
        (tmp_path / label / f"{label}.dcm").write_bytes(part10_bytes(ds))
    films = data.load(data.read_cases(tmp_path), PROFILE)
    sent = preprocess.prepare(
        reading.read_instance(io.BytesIO(part10_bytes(ds))),
        preprocess.profile_named(PROFILE),
        maximum_pixels=10**6,
    )
    assert films.tensors.shape == (2, 224, 224, 3)
    assert films.tensors.dtype == np.uint8
    assert np.array_equal(films.tensors[0], sent.tensor)


def test_the_manifest_hash_follows_content_and_label(tmp_path: Path):
    write_training_folder(tmp_path, 1, 1, 64)
    cases = data.read_cases(tmp_path)
    first = data.load(cases, PROFILE).manifest_sha256
    assert data.load(cases, PROFILE).manifest_sha256 == first
    path = cases[0].path
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    assert data.load(cases, PROFILE).manifest_sha256 != first
