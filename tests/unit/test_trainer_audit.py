"""What the audit finds, on films and tables small enough to see through."""

from __future__ import annotations

import csv
import hashlib
import json
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dicomnode.testing.phantoms import chest_phantom, part10_bytes, phantom_dataset
from trainer import audit, data
from trainer.audit import duplicates, fingerprints, looks
from trainer.audit.confounding import confounding
from trainer.audit.findings import Kind
from trainer.errors import DataError, UsageError

SIDE = 320


def phantom(seed: int, positive: bool = False) -> np.ndarray:
    return np.round(chest_phantom(seed, positive, SIDE, SIDE) * 255).astype(np.uint8)


def case(name: str, label: str = "a", patient: str = "", source: str = "", view: str = ""):
    return data.Case(
        path=Path(name), name=name, label=label, patient=patient or name, source=source, view=view
    )


# ----------------------------------------------------------------------- confounding


def table(*rows: tuple[str, int, int]) -> list[data.Case]:
    return [
        case(f"{source}{label}{n}", label, source=source)
        for source, first, second in rows
        for label, count in (("a", first), ("b", second))
        for n in range(count)
    ]


def test_a_source_that_is_the_label_is_told_by_every_figure():
    found = confounding(table(("x", 10, 0), ("y", 0, 10)), "source")
    assert found.cramers_v == pytest.approx(1)
    assert found.single_label_share == 1
    assert found.guess_accuracy == 1
    assert found.majority_accuracy == 0.5
    assert found.mixed_films == {"a": 0, "b": 0}
    assert found.strong


def test_a_source_that_says_nothing_is_not_accused():
    found = confounding(table(("x", 10, 10), ("y", 20, 20)), "source")
    assert found.cramers_v == pytest.approx(0)
    assert found.guess_accuracy == found.majority_accuracy == 0.5
    assert not found.strong


def test_the_figures_are_those_of_the_arithmetic():
    # chi-squared = 80 (30*30 - 10*10)^2 / 40^4 = 20; V = sqrt(20/80) = 0.5
    found = confounding(table(("x", 30, 10), ("y", 10, 30)), "source")
    assert found.cramers_v == pytest.approx(0.5)
    # Bergsma: phi2 = 0.25 - 1/79, k = 2 - 1/79
    assert found.cramers_v_corrected == pytest.approx(((0.25 - 1 / 79) / (1 - 1 / 79)) ** 0.5)
    assert found.guess_accuracy == 0.75


def test_few_films_in_many_sources_are_not_called_confounded():
    rng = random.Random(1)
    films = [case(f"f{n}", rng.choice("ab"), source=f"s{rng.randrange(20)}") for n in range(40)]
    found = confounding(films, "source")
    assert found.cramers_v > 0.5
    assert not found.strong


def test_one_source_or_one_label_has_no_confounding():
    assert confounding(table(("x", 3, 4)), "source").cramers_v == 0
    assert confounding(table(("x", 3, 0), ("y", 2, 0)), "source").cramers_v == 0


# ------------------------------------------------------------------------- near films


def test_near_pairs_are_all_that_comparing_all_with_all_finds():
    rng = np.random.default_rng(7)
    prints = rng.integers(0, 2**63, (300, 2), dtype=np.uint64)
    for n in range(100):  # plant pairs 0 to 16 bits apart
        flips = rng.choice(64, n % 17, replace=False)
        mask = np.bitwise_or.reduce(np.uint64(1) << flips.astype(np.uint64), initial=np.uint64(0))
        prints[200 + n, rng.integers(2)] = prints[n, rng.integers(2)] ^ mask
    found = fingerprints.near_pairs(prints)
    apart = np.bitwise_count(prints[:, None, :, None] ^ prints[None, :, None, :]).min(axis=(2, 3))
    expected = np.argwhere(np.triu(apart <= fingerprints.MAXIMUM_BITS, k=1))
    assert {(a, b) for a, b in zip(found.first, found.second, strict=True)} == {
        (a, b) for a, b in expected
    }
    assert np.all(np.diff(apart[found.first, found.second].astype(int)) >= 0)


def test_a_set_of_too_many_near_films_is_held_to_fewer_bits():
    rng = np.random.default_rng(7)
    prints = (np.uint64(1) << rng.integers(0, 64, (400, 2), dtype=np.uint64)).astype(np.uint64)
    found = fingerprints.near_pairs(prints, maximum_pairs=5000)
    assert found.maximum_bits == 0
    assert len(found.first) < 20_000


def test_fingerprints_do_not_see_window_or_gamma():
    film = phantom(1)
    darker = (255 * (film / 255) ** 1.6 * 0.7).astype(np.uint8)
    apart = np.bitwise_count(fingerprints.fingerprints(film) ^ fingerprints.fingerprints(darker))
    assert apart.max() <= 4


# ------------------------------------------------------------------------------ looks


@pytest.mark.parametrize(
    ("view", "frontal"),
    [
        ("PA", True), ("AP", True), ("", True), ("AP Supine", True), ("AP erect", True),
        ("PA or AP (NIH, not stated)", True), ("L", False), ("LL", False), ("Lateral", False),
        ("left lateral", False), ("oblique", False), ("AP decubitus", False), ("Axial", False),
    ],
)  # fmt: skip
def test_views_that_are_not_frontal_are_known(view: str, frontal: bool):
    assert looks.is_frontal(view) is frontal


def test_a_film_is_seen_to_be_upright_or_not():
    film = phantom(3)
    assert looks.look(film) is looks.Look.UPRIGHT
    assert looks.look(255 - film) is looks.Look.INVERTED
    assert looks.look(np.rot90(film, 2)) is looks.Look.UPSIDE_DOWN
    assert looks.look(np.rot90(film)) is looks.Look.ON_SIDE
    noise = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
    assert looks.look(noise) is looks.Look.UNLIKE


# ---------------------------------------------------------------------- a spoiled set


class Folder:
    """A training folder with a manifest that is written film by film."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, str]] = []

    def add(self, name: str, film: np.ndarray | bytes, label: str = "", **facts: str) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(film, bytes):
            path.write_bytes(film)
        else:
            Image.fromarray(film).save(path)
        row = {"filename": name, "label": label or path.parent.name, "patient_id": f"id-{name}"}
        self.rows.append({"dataset": "one", "view": "PA", "note": "", **row, **facts})

    def cases(self) -> tuple[data.Case, ...]:
        with (self.path / "manifest.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, self.rows[0])
            writer.writeheader()
            writer.writerows(self.rows)
        return data.read_cases(self.path, require_files=False)

    def audit(self) -> audit.Audit:
        return audit.inspect(self.cases())


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Four sound films of each class."""
    made = Folder(tmp_path / "films")
    for number in range(4):
        made.add(f"positive/{number}.png", phantom(2 * number + 1, True), note=f"p{number}")
        made.add(f"negative/{number}.png", phantom(2 * number), note=f"n{number}")
    return made


def names(found: audit.Audit, kind: Kind) -> list[str]:
    return [film.name for one in found.findings if one.kind is kind for film in one.films]


def test_nothing_is_found_in_a_sound_set(folder: Folder):
    found = folder.audit()
    assert found.findings == ()
    assert found.dropped == {}
    assert found.usable == 8
    assert found.classes["positive"] == {"films": 4, "patients": 4}


def test_films_that_no_model_should_see_are_found(folder: Folder):
    film = phantom(100)
    folder.add("negative/broken.png", b"not a picture")
    folder.add("negative/gone.png", b"")
    (folder.path / "negative/gone.png").unlink()
    folder.add("negative/tiny.png", phantom(102)[::2, ::2])
    folder.add("negative/flat.png", (phantom(104) // 6 + 80).astype(np.uint8))
    folder.add("negative/inverted.png", 255 - phantom(106))
    folder.add("negative/head_down.png", np.rot90(phantom(108), 2))
    folder.add("negative/on_side.png", np.rot90(phantom(110)))
    folder.add("negative/lateral.png", film, view="Lateral")
    ds = phantom_dataset(112, False, rows=SIDE, columns=SIDE)
    ds.BodyPartExamined = "HAND"
    folder.add("negative/hand.dcm", part10_bytes(ds))
    ds = phantom_dataset(114, False, rows=SIDE, columns=SIDE)
    ds.ViewPosition = "LL"
    folder.add("negative/side.dcm", part10_bytes(ds), view="")
    found = folder.audit()
    assert names(found, Kind.UNREADABLE) == ["negative/broken.png", "negative/gone.png"]
    assert names(found, Kind.TINY) == ["negative/tiny.png"]
    assert names(found, Kind.LOW_CONTRAST) == ["negative/flat.png"]
    assert names(found, Kind.INVERTED) == ["negative/inverted.png"]
    assert names(found, Kind.UPSIDE_DOWN) == ["negative/head_down.png"]
    assert names(found, Kind.ON_SIDE) == ["negative/on_side.png"]
    assert sorted(names(found, Kind.NOT_FRONTAL)) == ["negative/lateral.png", "negative/side.dcm"]
    assert names(found, Kind.REFUSED) == ["negative/hand.dcm"]
    assert set(found.dropped) == {row["filename"] for row in folder.rows[8:]}
    assert found.grave


def test_the_same_picture_is_found_whatever_became_of_the_file(folder: Folder):
    film = phantom(2)  # is negative/1.png
    folder.add("negative/again.png", (folder.path / "negative/1.png").read_bytes())
    smaller = Image.fromarray(phantom(4)).resize((240, 240))
    folder.add("negative/smaller.png", np.asarray(smaller))
    folder.add("positive/twin.png", (255 * (film[8:-6, 10:] / 255) ** 0.8).astype(np.uint8))
    found = folder.audit()
    assert names(found, Kind.NEAR_DUPLICATE) == ["negative/2.png", "negative/smaller.png"]
    assert names(found, Kind.LABEL_CONFLICT) == [
        "negative/1.png",
        "negative/again.png",
        "positive/twin.png",
    ]
    assert found.dropped["negative/smaller.png"] == (Kind.NEAR_DUPLICATE, "as negative/2.png")
    assert "negative/2.png" not in found.dropped
    assert {"negative/1.png", "negative/again.png", "positive/twin.png"} <= set(found.dropped)
    (near,) = [one for one in found.findings if one.kind is Kind.NEAR_DUPLICATE]
    assert near.sentence.startswith("1 picture, 2 films; 1 under several patients")


def test_the_same_file_twice_is_kept_once(folder: Folder):
    for name in ("a", "b"):
        folder.add(f"negative/{name}.png", (folder.path / "negative/1.png").read_bytes())
    found = folder.audit()
    assert names(found, Kind.EXACT_DUPLICATE) == [f"negative/{n}.png" for n in ("1", "a", "b")]
    assert set(found.dropped) == {"negative/a.png", "negative/b.png"}


def test_a_copy_of_a_film_that_goes_for_another_reason_stays(folder: Folder):
    twin = (folder.path / "negative/1.png").read_bytes()
    folder.add("negative/0_lateral.png", twin, view="L")
    found = folder.audit()
    assert set(found.dropped) == {"negative/0_lateral.png"}


def test_patients_on_both_sides_and_under_several_sources_are_counted_and_not_named(folder: Folder):
    folder.add("negative/x.png", phantom(200), patient_id="SECRET-17", dataset="one")
    folder.add("positive/x.png", phantom(201, True), patient_id="SECRET-17", dataset="two")
    found = folder.audit()
    assert names(found, Kind.BOTH_LABELS) == ["negative/x.png", "positive/x.png"]
    assert names(found, Kind.SEVERAL_SOURCES) == ["negative/x.png", "positive/x.png"]
    assert not found.grave
    assert "SECRET" not in json.dumps(found.to_json())


def test_films_without_a_patient_are_told(folder: Folder):
    folder.add("negative/x.png", phantom(200), patient_id="")
    assert names(folder.audit(), Kind.PATIENT_UNKNOWN) == ["negative/x.png"]


def test_a_class_with_too_few_patients_is_told(folder: Folder):
    folder.rows = folder.rows[:5]
    (few,) = [one for one in folder.audit().findings if one.kind is Kind.FEW_PATIENTS]
    assert "negative: 2 patients" in few.sentence


def test_source_and_view_that_tell_the_label_are_told(folder: Folder):
    for row in folder.rows:
        row["dataset"] = "ward" if row["label"] == "positive" else "clinic"
        row["view"] = "AP" if row["label"] == "positive" else "PA"
    found = folder.audit()
    kinds = [one.kind for one in found.findings]
    assert kinds == [Kind.SOURCE_CONFOUNDING, Kind.VIEW_CONFOUNDING]
    assert "guessing by source alone is right for 100%" in found.findings[0].sentence


def test_the_audit_does_not_depend_on_the_order_of_the_films(folder: Folder):
    folder.add("negative/again.png", (folder.path / "negative/1.png").read_bytes())
    cases = folder.cases()
    assert audit.inspect(cases).to_json() == audit.inspect(cases[::-1]).to_json()


def test_pairs_beyond_the_bound_are_counted(folder: Folder):
    for number in range(4):
        film = np.clip(phantom(300).astype(int) + number, 0, 255).astype(np.uint8)
        folder.add(f"negative/c{number}.png", film)
    films, _ = audit.inspection.measure(folder.cases())
    found = duplicates.find(films, maximum_registrations=2)
    assert found.compared == 2
    assert found.not_compared > 0


# ------------------------------------------------------------------- clean, and a page


def test_a_cleaned_manifest_is_the_old_one_without_what_goes(folder: Folder):
    folder.add("negative/broken.png", b"not a picture")
    found = folder.audit()
    out = folder.path / "clean.csv"
    dropped = audit.write_clean(found, out, manifest=folder.path / "manifest.csv")
    with (folder.path / "manifest.csv").open(newline="") as stream:
        old = {row["filename"]: row for row in csv.DictReader(stream)}
    with out.open(newline="") as stream:
        new = list(csv.DictReader(stream))
    assert new == [old[name] for name in sorted(old) if name != "negative/broken.png"]
    with dropped.open(newline="") as stream:
        (gone,) = csv.DictReader(stream)
    assert gone["filename"] == "negative/broken.png"
    assert gone["reason"] == "unreadable"
    assert {case.name for case in data.read_cases(out)} == set(old) - {"negative/broken.png"}
    assert out.stat().st_mode & 0o777 == dropped.stat().st_mode & 0o777 == 0o600
    first = hashlib.sha256(out.read_bytes()).hexdigest()
    audit.write_clean(folder.audit(), out, manifest=folder.path / "manifest.csv")
    assert hashlib.sha256(out.read_bytes()).hexdigest() == first


def test_a_cleaned_manifest_elsewhere_says_where_the_films_are(folder: Folder, tmp_path: Path):
    found = folder.audit()
    (tmp_path / "elsewhere").mkdir()
    out = tmp_path / "elsewhere" / "clean.csv"
    audit.write_clean(found, out, manifest=folder.path / "manifest.csv")
    cases = data.read_cases(out)
    assert [one.path for one in cases] == [one.path for one in found.cases]
    assert [one.name for one in cases] == [one.name for one in found.cases]
    assert audit.inspect(cases).to_json() == found.to_json()


def test_a_folder_without_a_manifest_gets_one(folder: Folder):
    found = audit.inspect(data.folders.read(folder.path))
    out = folder.path / "manifest.csv"
    audit.write_clean(found, out)
    cases = data.read_cases(folder.path)
    assert [(one.name, one.label, one.patient) for one in cases] == [
        (one.name, one.label, one.patient) for one in found.cases
    ]


def test_the_audited_manifest_is_never_overwritten(folder: Folder):
    found = folder.audit()
    manifest = folder.path / "manifest.csv"
    with pytest.raises(UsageError, match="give another file"):
        audit.write_clean(found, folder.path / "." / "manifest.csv", manifest=manifest)


def test_a_folder_that_cannot_be_written_to_is_one_error(folder: Folder, tmp_path: Path):
    found = folder.audit()
    with pytest.raises(DataError, match="cannot write"):
        audit.write_clean(found, tmp_path / "nowhere" / "clean.csv")
    with pytest.raises(DataError, match="cannot write"):
        audit.write_page(found, tmp_path / "nowhere" / "page.html", title="films")


def test_the_page_shows_films_and_names_nobody(folder: Folder):
    folder.add("negative/<b>odd.png", 255 - phantom(106), patient_id="SECRET-1")
    folder.add("negative/broken.png", b"not a picture", patient_id="SECRET-2")
    page = folder.path / "audit.html"
    audit.write_page(folder.audit(), page, title="films & more")
    html = page.read_text()
    assert page.stat().st_mode & 0o777 == 0o600
    assert "SECRET" not in html
    assert "films &amp; more" in html
    assert "negative/&lt;b&gt;odd.png" in html
    assert html.count("data:image/jpeg;base64,") == 1
    assert "no picture" in html
    assert "http" not in html, "it needs nothing from elsewhere"


def test_the_page_is_bounded(folder: Folder):
    broken = b"not a picture"
    for number in range(40):
        folder.add(f"negative/broken{number:02}.png", broken)
    page = folder.path / "audit.html"
    audit.write_page(folder.audit(), page, title="films")
    assert page.read_text().count("<figure>") == 24
    assert "and 16 more films" in page.read_text()
