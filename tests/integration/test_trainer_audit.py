"""The command `trainer audit`, as it is typed, and what it finds on real radiographs."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from threadpoolctl import threadpool_limits

from dicomnode.imaging import preprocess
from dicomnode.testing.phantoms import write_training_folder
from dicomnode.testing.stores import opened_store
from tests.integration.test_trainer_store import film, push_labelled
from trainer import audit, data
from trainer.audit import looks
from trainer.audit.fingerprints import fingerprints, likeness, near_pairs, thumbnail
from trainer.audit.registration import SAME, agreement


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "trainer", "audit", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms, of which one is a negative and one is no film."""
    folder = tmp_path_factory.mktemp("audit") / "films"
    write_training_folder(folder, 4, 1, 256)
    negative = folder / "negative" / "phantom_00001.png"
    Image.fromarray(255 - np.asarray(Image.open(negative))).save(negative)
    (folder / "positive" / "phantom_00002.png").write_bytes(b"not a picture")
    return folder


def test_the_command_tells_shows_and_cleans(spoiled: Path, tmp_path: Path):
    page, clean = tmp_path / "audit.html", tmp_path / "clean.csv"
    ended = run("--data", spoiled, "--html", page, "--write-clean", clean)
    assert ended.returncode == 0, ended.stderr
    assert "8 films, 7 usable" in ended.stdout
    assert "inverted: 1 film (negative/phantom_00001.png)" in ended.stdout
    assert "unreadable: 1 film (positive/phantom_00002.png)" in ended.stdout
    assert "PHANTOM-" not in ended.stdout + ended.stderr + page.read_text()
    assert page.read_text().count("data:image/jpeg") == 1
    assert len(data.read_cases(clean)) == 6
    with (tmp_path / "clean.dropped.csv").open(newline="") as stream:
        dropped = {row["filename"]: row["reason"] for row in csv.DictReader(stream)}
    assert dropped == {
        "negative/phantom_00001.png": "inverted",
        "positive/phantom_00002.png": "unreadable",
    }


def test_strict_ends_with_one_and_json_is_one_object(spoiled: Path):
    ended = run("--data", spoiled, "--json", "--strict")
    assert ended.returncode == 1
    told = json.loads(ended.stdout)
    kinds = [finding["kind"] for finding in told["findings"]]
    assert kinds == ["unreadable", "inverted"]
    assert told["confounding"][0]["counts"] == {"phantoms": {"negative": 4, "positive": 4}}


def test_the_store_of_a_node_is_audited(tmp_path: Path):
    settings = tmp_path / "node.toml"
    settings.write_text(f'[storage]\nroot = "{tmp_path / "store"}"\n')
    with opened_store(tmp_path / "store") as node:
        empty = run("--config", settings)
        for seed in range(4):
            ds = film(seed, PatientID="SECRET")
            push_labelled(node, ds, "positive" if seed % 2 else "negative")
        push_labelled(node, film(9, ViewPosition="LL"))
        ended = run("--config", settings, "--json")
    assert empty.returncode == 1
    assert "holds no labelled film" in empty.stderr
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert (told["films"], told["refused_by_the_node"]) == (4, 1)
    assert "both_labels" in [finding["kind"] for finding in told["findings"]]
    assert "SECRET" not in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "give either --data DIR or --config FILE"),
        (("--data", "nowhere"), 1, "nowhere is not there; expected a folder per class"),
        (("--data", "."), 1, "fewer than two classes"),
    ],
)
def test_wrong_use_is_one_clear_line(
    arguments, code, message, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.chdir(tmp_path)
    ended = run(*arguments)
    assert ended.returncode == code
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


# ------------------------------------------------------------------- real radiographs


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """For the small matrices here, as `audit.inspect` has it."""
    with threadpool_limits(1, user_api="blas"):
        yield


@pytest.fixture(scope="module")
def real(shared_data: Path) -> list[np.ndarray]:
    """368 films of five collections, uint8 [rows, columns]."""
    return [
        preprocess.image_file_grey8(case.path.read_bytes(), maximum_pixels=10**8)
        for case in data.read_cases(shared_data / "cxr")
    ]


def test_the_one_picture_in_two_collections_is_found_and_nobody_else_accused(shared_data: Path):
    """One exposure was published twice, turned and cropped, under two patient numbers."""
    pair = {"positive/fig1_031.jpg", "positive/ieee_053.jpg"}
    cases = data.read_cases(shared_data / "cxr")
    some = [case for n, case in enumerate(cases) if n % 3 == 0 or case.name in pair]
    found = {one.kind.name: one for one in audit.inspect(some).findings}
    assert {film.name for film in found["NEAR_DUPLICATE"].films} == pair
    assert "1 under several patients" in found["NEAR_DUPLICATE"].sentence
    assert set(found) <= {
        "NEAR_DUPLICATE",
        "SOURCE_CONFOUNDING",
        "VIEW_CONFOUNDING",
        "UNLIKE",
        "BOTH_LABELS",
    }


def test_source_tells_the_label_of_the_public_films(shared_data: Path):
    found = audit.confounding(data.read_cases(shared_data / "cxr"), "source")
    assert found.strong
    # NIH holds 137 negatives only, Hannover 44 positives only
    assert found.single_label_share == pytest.approx((137 + 44) / 368)
    assert found.guess_accuracy == pytest.approx((137 + 44 + 107 + 20 + 13) / 368)


def test_real_films_turned_round_are_noticed(real: list[np.ndarray]):
    def share(wanted: looks.Look, films: list[np.ndarray]) -> float:
        return float(np.mean([looks.look(np.ascontiguousarray(film)) is wanted for film in films]))

    assert share(looks.Look.INVERTED, [255 - film for film in real]) >= 0.96
    assert share(looks.Look.UPSIDE_DOWN, [film[::-1] for film in real]) >= 0.93
    assert share(looks.Look.ON_SIDE, [np.rot90(film) for film in real]) >= 0.96
    accused = [looks.look(film) not in (looks.Look.UPRIGHT, looks.Look.UNLIKE) for film in real]
    assert not any(accused)


def test_copies_of_real_films_are_recognised(real: list[np.ndarray]):
    for picture in real[::24]:
        rows, columns = picture.shape
        image = Image.fromarray(picture)
        for copy in (
            np.asarray(image.resize((224, 224), Image.Resampling.BILINEAR)),
            (255 * (picture / 255) ** 0.7).astype(np.uint8),
            picture[rows // 25 : -rows // 25, columns // 25 : -columns // 25],
            np.asarray(image.rotate(2, Image.Resampling.BILINEAR)),
        ):
            both = [picture, np.ascontiguousarray(copy)]
            thumbnails = [thumbnail(one) for one in both]
            near = near_pairs(np.stack([fingerprints(one) for one in both]))
            assert near.first.tolist() == [0]
            assert likeness(thumbnails, near.first, near.second)[0] > 0.75
            assert agreement(*thumbnails) >= SAME
