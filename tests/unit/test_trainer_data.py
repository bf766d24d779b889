"""Training data: found, parted by patient, prepared as the node prepares it."""

from __future__ import annotations

import csv
import hashlib
import io
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dicomnode.imaging import preprocess, reading
from dicomnode.testing.phantoms import part10_bytes, phantom_dataset, write_training_folder
from trainer import data
from trainer.data import films as films_module
from trainer.data import manifest
from trainer.errors import DataError, StorageFull
from trainer.spelling import plain

PROFILE = "unit-rgb-224/1"
PUBLISHED = ("84,24,32,", "259d5ac17ccdb8ad")


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


def test_spaces_around_what_a_spreadsheet_says_make_no_other_patient(tmp_path: Path):
    """`P7 ` and `P7` in two parts would be one patient on both sides."""
    write_training_folder(tmp_path, 2, 1, 64)
    names = ("negative/phantom_00000.png", "positive/phantom_00000.png")
    rows = [
        {"filename": names[0], "label": "a", "patient_id": "P7 ", "dataset": "X", "sha256": " AB "},
        {"filename": names[1], "label": " b", "patient_id": " P7", "dataset": "X ", "sha256": ""},
    ]
    write_manifest(tmp_path, *rows)
    first, second = data.read_cases(tmp_path)
    assert first.patient == second.patient == "P7"
    assert first.source == second.source == "X"
    assert first.sha256 == "ab"


def test_a_class_is_the_same_whether_accents_are_composed_or_not(tmp_path: Path):
    """A folder that came from a Mac has the letter and its accent apart."""
    write_training_folder(tmp_path, 1, 1, 64)
    (tmp_path / "manifest.csv").unlink()
    (tmp_path / "positive").rename(tmp_path / unicodedata.normalize("NFD", "neumonía"))
    cases = data.read_cases(tmp_path)
    assert {case.label for case in cases} == {"negative", "neumonía"}
    assert all(case.path.is_file() for case in cases)


def test_a_file_name_that_is_not_utf8_is_told_with_the_way_out(tmp_path: Path):
    write_training_folder(tmp_path, 1, 1, 64)
    (tmp_path / "manifest.csv").unlink()
    film = next((tmp_path / "positive").iterdir())
    film.rename(film.with_name("pel\udced.png"))
    with pytest.raises(DataError, match=r"positive/pel\\xed\.png is not UTF-8; rename it.*convmv"):
        data.read_cases(tmp_path)


def test_a_patient_id_in_a_broken_character_set_can_be_parted_and_written(tmp_path: Path):
    assert plain("P\udced ") == r"P\udced"


def test_a_copy_under_another_patients_name_is_left_out(tmp_path: Path):
    """It would be learned from and then judge what was learned."""
    write_training_folder(tmp_path, 2, 1, 64)
    (tmp_path / "manifest.csv").unlink()
    film = tmp_path / "positive" / "phantom_00000.png"
    shutil.copy(film, tmp_path / "positive" / "zz.png")
    shutil.copy(film, tmp_path / "negative" / "copy.png")
    films = data.load(data.read_cases(tmp_path), PROFILE)
    assert len(films.cases) == len(films.tensors) == len(set(films.digests)) == 4
    assert {film.name: film.copy_of for film in films.skipped} == {
        "positive/phantom_00000.png": "negative/copy.png",
        "positive/zz.png": "negative/copy.png",
    }
    assert {film.reason for film in films.skipped} == {
        "the same file, byte by byte, as another, which is labelled negative; one of the two "
        "labels is wrong"
    }
    with pytest.raises(DataError, match="cannot be used: the same file"):
        data.load(data.read_cases(tmp_path), PROFILE, strict=True)


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
    for label, shown in (
        ("negative", ds),
        ("positive", phantom_dataset(4, True, rows=300, columns=280)),
    ):
        (tmp_path / label).mkdir()
        (tmp_path / label / f"{label}.dcm").write_bytes(part10_bytes(shown))
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


# --------------------------------------------------------------- films that cannot be used


def test_films_that_cannot_be_used_are_listed_and_left_out(tmp_path: Path):
    write_training_folder(tmp_path, 2, 1, 64)
    (tmp_path / "negative" / "phantom_00000.png").write_bytes(b"not a picture")
    cases = data.read_cases(tmp_path)
    films = data.load(cases, PROFILE)
    assert [skipped.name for skipped in films.skipped] == ["negative/phantom_00000.png"]
    assert "cannot be decoded" in films.skipped[0].reason
    assert [case.name for case in films.cases] == [case.name for case in cases[1:]]
    assert len(films.tensors) == len(films.digests) == 3


def test_a_film_that_the_node_would_not_evaluate_is_not_trained_on(tmp_path: Path):
    for label in ("positive", "negative"):
        (tmp_path / label).mkdir()
        ds = phantom_dataset(3, True, rows=300, columns=280)
        if label == "positive":
            ds.ViewPosition = "LL"
        (tmp_path / label / "film.dcm").write_bytes(part10_bytes(ds))
    films = data.load(data.read_cases(tmp_path), PROFILE)
    assert [case.label for case in films.cases] == ["negative"]
    assert films.skipped[0].reason.startswith("the node would not evaluate it (view)")


def test_a_set_without_any_usable_film_is_refused(tmp_path: Path):
    write_training_folder(tmp_path, 1, 1, 64)
    cases = data.read_cases(tmp_path)
    for case in cases:
        case.path.write_bytes(b"")
    with pytest.raises(DataError, match="none of 2 films can be used; negative/phantom_00000"):
        data.load(cases, PROFILE)


def test_a_huge_file_is_not_read(tmp_path: Path):
    write_training_folder(tmp_path, 1, 1, 64)
    with (tmp_path / "negative" / "phantom_00000.png").open("wb") as stream:
        stream.truncate(300 * 1024 * 1024)  # sparse
    films = data.load(data.read_cases(tmp_path), PROFILE)
    assert "has 314,572,800 bytes, at most 268,435,456" in films.skipped[0].reason


def test_a_film_that_changed_since_the_snapshot_is_left_out(tmp_path: Path):
    write_training_folder(tmp_path / "films", 2, 1, 64)
    loaded = data.load(data.read_cases(tmp_path / "films"), PROFILE)
    snapshot = tmp_path / "snapshot.csv"
    data.write_snapshot(snapshot, loaded.cases, loaded.digests)
    assert data.load(data.read_cases(snapshot), PROFILE).skipped == ()
    loaded.cases[0].path.write_bytes(loaded.cases[1].path.read_bytes())
    loaded.cases[2].path.unlink()
    films = data.load(data.read_cases(snapshot), PROFILE)
    assert [skipped.name for skipped in films.skipped] == [
        loaded.cases[0].name,
        loaded.cases[2].name,
    ]
    assert "has changed" in films.skipped[0].reason


def test_tensors_in_a_file_are_those_in_memory_and_the_file_goes(tmp_path: Path):
    write_training_folder(tmp_path / "films", 2, 1, 64)
    cases = data.read_cases(tmp_path / "films")
    (tmp_path / "films" / "positive" / "phantom_00001.png").write_bytes(b"broken")
    scratch = tmp_path / "scratch"
    filed, held = data.load(cases, PROFILE, scratch=scratch), data.load(cases, PROFILE)
    assert np.array_equal(filed.tensors, held.tensors)
    assert filed.manifest_sha256 == held.manifest_sha256
    assert list(scratch.iterdir()) == []


def test_a_scratch_folder_without_space_is_one_clear_error(tmp_path: Path):
    write_training_folder(tmp_path, 1, 1, 64)
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    planes = films_module._PlanesInFile(tmp_path)
    planes._file = Path("/dev/full").open("r+b", buffering=0)  # noqa: SIM115
    with pytest.raises(StorageFull, match="no space left"):
        planes.add(np.zeros((224, 224, 1), np.uint8))
    planes._file.close()


def test_three_channels_take_the_memory_of_one(tmp_path: Path):
    write_training_folder(tmp_path, 1, 1, 64)
    tensors = data.load(data.read_cases(tmp_path), PROFILE).tensors
    assert tensors.shape == (2, 224, 224, 3)
    assert tensors.strides[-1] == 0


# ------------------------------------------------------------------------ manifests


def test_a_film_listed_twice_is_refused_with_both_lines(tmp_path: Path):
    (tmp_path / "a.png").touch()
    row = {"filename": "a.png", "label": "x"}
    write_manifest(tmp_path, row, row)
    with pytest.raises(DataError, match=r"line 3: a\.png is listed before, in line 2"):
        data.read_cases(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"filename;label\na;x\n", "no column filename, label; it is separated by semicolons"),
        (b"filename,label\na\xff,x\n", "is not UTF-8"),
        (b"filename,label\n" + b"a" * 200_000 + b",x\n", "is not CSV"),
        (b"filename,label\na\0.png,x\n", "line 2: the filename cannot be that of a file"),
        (b"", "no column filename, label"),
    ],
)
def test_what_is_no_manifest_is_said_so(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "manifest.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        data.read_cases(tmp_path)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path):
    (tmp_path / "outside.png").touch()
    folder = tmp_path / "films"
    folder.mkdir()
    (folder / "a.png").symlink_to(tmp_path / "outside.png")
    write_manifest(folder, {"filename": "a.png", "label": "x"})
    with pytest.raises(DataError, match="line 2: expected a label and a filename inside"):
        data.read_cases(folder)


def test_a_snapshot_wants_absolute_paths(tmp_path: Path):
    write_manifest(tmp_path, {"filename": "a.png", "label": "x", "path": "a.png"})
    with pytest.raises(DataError, match="line 2: expected an absolute path"):
        data.read_cases(tmp_path)


def test_a_manifest_file_of_any_name_can_be_given(tmp_path: Path):
    write_training_folder(tmp_path, 2, 1, 64)
    (tmp_path / "manifest.csv").rename(tmp_path / "cleaned.csv")
    assert len(data.read_cases(tmp_path / "cleaned.csv")) == 4


def test_a_manifest_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(manifest, "MAXIMUM_FILMS", 2)
    write_training_folder(tmp_path, 2, 1, 64)
    with pytest.raises(DataError, match="lists more than 2 films"):
        data.read_cases(tmp_path)


def test_a_hundred_thousand_lines_are_read(tmp_path: Path):
    with (tmp_path / "manifest.csv").open("w") as stream:
        stream.write("filename,label,patient_id\n")
        stream.writelines(f"{n}.png,{'ab'[n % 2]},p{n % 5000}\n" for n in range(100_000))
    cases = data.read_cases(tmp_path, require_files=False)
    assert len(cases) == 100_000


def test_a_dicom_film_in_a_manifest_without_patients_says_whose_it_is(tmp_path: Path):
    for number in range(2):
        ds = phantom_dataset(3, True, rows=64, columns=64, instance_number=number + 1)
        (tmp_path / f"{number}.dcm").write_bytes(part10_bytes(ds))
    write_manifest(tmp_path, *({"filename": f"{n}.dcm", "label": "ab"[n]} for n in range(2)))
    cases = data.read_cases(tmp_path)
    assert len({case.patient for case in cases}) == 1
    assert cases[0].sop_instance_uid != cases[1].sop_instance_uid


# ---------------------------------------------------------------------------- splits


def test_the_split_of_a_published_seed_stays():
    """Computed by the first version of the split; figures that were published stand on it."""
    parts = split(many())
    said = "".join(str(len(part)) + "," for part in (parts.training, parts.validation, parts.test))
    indices = ",".join(map(str, (*parts.test, *parts.validation)))
    assert (said, hashlib.sha256(indices.encode()).hexdigest()[:16]) == PUBLISHED


def test_a_split_by_image_may_part_a_patient():
    cases = cases_of({"p": ["positive"] * 50, "n": ["negative"] * 50})
    parts = data.split(cases, test_fraction=0.2, validation_fraction=0, seed=42, by="image")
    assert len(parts.test) == 20
    assert len(parts.validation) == 0
    with pytest.raises(DataError, match="too few"):
        data.split(cases, test_fraction=0.2, validation_fraction=0, seed=42)


def held_out(cases, seed=42):
    return data.held_out(cases, test_fraction=0.2, validation_fraction=0.2, seed=seed)


def test_held_out_patients_stay_so_as_the_set_grows():
    few = many()
    more = [*few, *cases_of({f"new{n}": ["positive", "negative"] for n in range(100)})]
    old, new = held_out(few), held_out(more)
    for part in ("training", "validation", "test"):
        names = {few[i].name for i in getattr(old, part)}
        assert names <= {more[i].name for i in getattr(new, part)}


def test_held_out_shares_are_those_asked_for_on_average():
    cases = cases_of({f"p{n}": ["positive", "negative"] for n in range(2000)})
    parts = held_out(cases)
    assert abs(len(parts.test) / 4000 - 0.2) < 0.03
    assert abs(len(parts.validation) / 4000 - 0.16) < 0.03
    assert set(parts.test) != set(held_out(cases, seed=1).test)


def test_skipped_films_leave_the_split_and_move_nobody(tmp_path: Path):
    write_training_folder(tmp_path, 12, 1, 64)
    cases = data.read_cases(tmp_path)
    parts = data.split(cases, test_fraction=0.25, validation_fraction=0.25, seed=42)
    broken = cases[parts.test[0]]
    broken.path.write_bytes(b"broken")
    films = data.load(cases, PROFILE)
    left = data.drop_skipped(parts, cases, films)
    for part in ("training", "validation", "test"):
        expected = [cases[i].name for i in getattr(parts, part) if cases[i] is not broken]
        assert [films.cases[i].name for i in getattr(left, part)] == expected


def test_classes_that_cannot_be_trained_on_are_refused_with_their_counts():
    few = cases_of({"a": ["positive"] * 5, "b": ["negative"], "c": ["negative"], "d": ["negative"]})
    with pytest.raises(DataError, match=r"'positive' has too few patients.*negative: 3 patients, "):
        data.require_classes(few)
    with pytest.raises(DataError, match="found negative: 3 patients; add films of another class"):
        data.require_classes([case for case in few if case.label == "negative"])
    with pytest.raises(DataError, match="no film is of the positive class 'covid'"):
        data.require_classes(few, positive_class="covid")
    assert data.require_classes(many(), positive_class="positive") == ("negative", "positive")


def test_no_error_names_a_patient(tmp_path: Path):
    rows = [{"filename": f"{n}.png", "label": "ab"[n % 2], "patient_id": "SECRET"} for n in (0, 1)]
    write_manifest(tmp_path, *rows)
    for row in rows:
        (tmp_path / row["filename"]).write_bytes(b"broken")
    cases = data.read_cases(tmp_path)
    for refused in (
        lambda: data.load(cases, PROFILE),
        lambda: data.load(cases, PROFILE, strict=True),
        lambda: split(cases),
        lambda: data.require_classes(cases),
    ):
        with pytest.raises(DataError) as error:
            refused()
        assert "SECRET" not in str(error.value)


def test_the_patients_held_out_by_a_seed_stay_from_release_to_release():
    """Another hash would train the next version on films that the last one was tested on."""
    cases = cases_of({f"patient {n}": ["positive", "negative"] for n in range(30)})
    patients = {int(cases[i].patient.split()[1]) for i in held_out(cases).test}
    assert patients == {7, 10, 21, 29}
