"""`trainer evaluate` asks a real SavedModel about films on disk.

The model needs no training: the brighter the film, the likelier it is positive.
"""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dicomnode.modelcard import CARD_PATH, Code, ModelCard, Threshold
from dicomnode.testing.saved_models import write_tiny_version
from trainer import data, evaluate
from trainer.cli import main
from trainer.errors import DataError, RegistryError, TrainerError
from trainer.evaluate import served
from trainer.registry import TRAINING_MANIFEST_PATH

tf = pytest.importorskip("tensorflow")

PROFILE = "unit-rgb-224/1"
FILMS = 48


def card(**changes: Any) -> ModelCard:
    facts: dict[str, Any] = {
        "model_name": "brightness",
        "model_version": 1,
        "network": "mean",
        "classes": ("negative", "positive"),
        "positive_class": "positive",
        "finding": Code(value="840539006", scheme_designator="SCT", meaning="COVID-19"),
        "preprocess_profile": PROFILE,
        "threshold": Threshold(value=0.5, rule="fixed at a half"),
        "created_at": "2026-11-24T12:00:00+00:00",
    }
    return ModelCard(**facts | changes)


class Brightness(tf.Module):
    """Probability 0.5 at grey 128; `columns` probabilities, times `scale`."""

    def __init__(self, columns: int = 2, scale: float = 1.0) -> None:
        super().__init__()
        self._columns, self._scale = columns, tf.Variable(scale)

    @tf.function(input_signature=[tf.TensorSpec([None, 224, 224, 3], tf.uint8, name="images")])
    def uint8(self, images: Any) -> dict[str, Any]:
        mean = tf.reduce_mean(tf.cast(images, tf.float32), [1, 2, 3])
        positive = tf.sigmoid((mean - 128.0) / 30.0) * self._scale
        sides = [1.0 - positive, positive, *[tf.zeros_like(positive)] * (self._columns - 2)]
        return {"probabilities": tf.stack(sides, axis=1)}


def write_version(folder: Path, module: Any | None = None, signature: str = "uint8") -> Path:
    module = module or Brightness()
    tf.saved_model.save(module, str(folder), signatures={signature: module.uint8})
    (folder / "assets.extra").mkdir(exist_ok=True)
    (folder / CARD_PATH).write_text(card().to_json())
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory with version 2 (which serves) and a version 1 that cannot be read."""
    folder = tmp_path_factory.mktemp("models") / "brightness"
    (folder / "1").mkdir(parents=True)
    write_version(folder / "2")
    return folder


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 films of 24 patients from two hospitals and one nobody, a few of them hard."""
    folder = tmp_path_factory.mktemp("films")
    rng = np.random.default_rng(1)
    with (folder / "manifest.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["filename", "label", "patient_id", "dataset", "view"])
        for number in range(FILMS):
            positive = number // 2 % 2 == 0
            name = f"film-{number:02}.png"
            mean = (150 if positive else 105) + rng.normal(0, 25)
            pixels = np.clip(rng.normal(mean, 20, (64, 64)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name)
            label = "positive" if positive else "negative"
            source = ("north", "south", "")[number % 3]
            rows.writerow([name, label, f"SECRET^{number // 2}", source, "PA"])
    return folder


def with_manifest(base: Path, films: Path, parts: dict[int, str], folder: Path) -> Path:
    """A copy of version 2 that says of some films which part they were in."""
    shutil.copytree(base / "2", folder)
    lines = ["sha256,label,part"]
    for number, part in parts.items():
        content = (films / f"film-{number:02}.png").read_bytes()
        label = "positive" if number // 2 % 2 == 0 else "negative"
        lines.append(f"{hashlib.sha256(content).hexdigest()},{label},{part}")
    (folder / TRAINING_MANIFEST_PATH).write_text("\n".join(lines) + "\n")
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", *arguments])
    told = capsys.readouterr()
    return int(ended.value.code or 0), told.out, told.err


def entry(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    code, out, err = run(capsys, *arguments, "--json", "--resamples", "50")
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_the_command_prints_a_table_and_writes_a_report(base, films, tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "trainer", "evaluate"),
            *("--model", str(base), "--data", str(films)),
            *("--report", str(tmp_path / "report"), "--prevalence", "0.1"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "48 films of 24 patients: 24 positive (the positive class), 24 not" in done.stdout
    assert "ROC AUC, within sources that hold both labels" in done.stdout
    assert "PPV at the stated prevalence 0.1" in done.stdout
    assert "fixed at a half" in done.stdout
    assert "does not say which films it learned from" in done.stdout
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "whether it learned from some of them is not known" in page
    assert "SECRET" not in page + done.stdout + done.stderr


def test_the_newest_version_answers_and_its_figures_are_those_of_its_answers(base, films, capsys):
    told = entry(capsys, "--model", str(base), "--data", str(films))
    guess = told["assessment"]["metrics"]["auc_by_source_alone"]["guess"]
    assert guess == "other held-out films of the source"
    assert told["model"]["folder"] == str(base / "2")
    assert told["held_out"] is None
    loaded = data.load(data.read_cases(films), PROFILE)
    answers = served.predict_version(base / "2", loaded, batch_size=7)
    means = loaded.tensors.mean(axis=(1, 2, 3))
    assert np.allclose(answers.scores, 1 / (1 + np.exp(-(means - 128) / 30)), atol=1e-5)
    figures = told["assessment"]["metrics"]
    assert figures["auc"]["value"] == round(evaluate.auc(answers.truth, answers.scores) or 0, 4)
    called = answers.scores >= 0.5
    assert figures["confusion"]["true_positive"] == int((called & answers.truth).sum())


def test_films_that_the_model_learned_from_and_their_patients_are_left_out(
    base, films, tmp_path, capsys
):
    # films 0 and 1 are of one patient, as are 2 and 3: of the latter only 2 was learned from
    parts = {0: "training", 1: "validation", 2: "training", 4: "test"}
    version = with_manifest(base, films, parts, tmp_path / "1")
    told = entry(capsys, "--model", str(version), "--data", str(films))
    assert told["left_out"] == {"learned_from": 3, "same_patients": 1}
    assert told["assessment"]["films"] == FILMS - 4
    assert told["held_out"] is True
    guess = told["assessment"]["metrics"]["auc_by_source_alone"]["guess"]
    assert guess == "share of positives in the training part"

    everything = entry(capsys, "--model", str(version), "--data", str(films), "--include-training")
    assert everything["assessment"]["films"] == FILMS
    assert everything["held_out"] is False
    assert any("no evaluation" in remark for remark in everything["remarks"])


def test_its_own_test_part_can_be_asked_for(base, films, tmp_path, capsys):
    parts = {0: "training", **dict.fromkeys(range(8, 20), "test")}
    version = with_manifest(base, films, parts, tmp_path / "1")
    told = entry(capsys, "--model", str(version), "--data", str(films), "--part", "test")
    assert told["assessment"]["films"] == 12
    assert told["left_out"] == {"not_of_the_test_part": FILMS - 12}
    code, _, err = run(capsys, "--model", str(base), "--data", str(films), "--part", "test")
    assert code == 1
    assert "does not say which films were its test part" in err


def test_nothing_left_to_evaluate_on_ends_with_3(base, films, tmp_path, capsys):
    parts = dict.fromkeys(range(FILMS), "training")
    version = with_manifest(base, films, parts, tmp_path / "1")
    code, _, err = run(capsys, "--model", str(version), "--data", str(films))
    assert code == 3
    assert "48 films that the model learned from" in err


def test_a_film_that_cannot_be_used_is_listed_or_with_strict_stops(base, films, tmp_path, capsys):
    copy = tmp_path / "films"
    shutil.copytree(films, copy)
    (copy / "film-07.png").write_bytes(b"no picture")
    told = entry(capsys, "--model", str(base), "--data", str(copy))
    assert [film["name"] for film in told["skipped"]] == ["film-07.png"]
    assert told["assessment"]["films"] == FILMS - 1
    code, _, err = run(capsys, "--model", str(base), "--data", str(copy), "--strict")
    assert code == 1
    assert "film-07.png" in err


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--prevalence", "1.5"], 2, "prevalence must be above 0 and below 1"),
        (["--part", "training"], 2, "training"),
        (["--resamples", "0"], 2, "resamples"),
    ],
)
def test_a_wrong_option_ends_with_2_before_anything_is_loaded(
    tmp_path, capsys, options, code, message
):
    missing = str(tmp_path / "gone")
    found, _, err = run(capsys, "--model", missing, "--data", missing, *options)
    assert found == code
    assert message in err


def test_a_folder_without_a_version_says_how_to_get_one(films, tmp_path, capsys):
    code, _, err = run(capsys, "--model", str(tmp_path), "--data", str(films))
    assert code == 1
    assert "neither a version (no saved_model.pb) nor a model directory" in err
    assert len(err.splitlines()) == 1


# --------------------------------------------------------------------- predict_version


@pytest.fixture(scope="module")
def loaded(films: Path) -> data.Films:
    return data.load(data.read_cases(films)[:4], PROFILE)


def test_films_for_another_model_are_refused(base, films):
    small = data.load(data.read_cases(films)[:2], "unit-rgb-299/1")
    with pytest.raises(DataError, match=r"takes uint8 \[224, 224, 3\]; prepare them with unit"):
        served.predict_version(base / "2", small)


def test_a_label_that_the_model_does_not_know_is_refused(base, loaded, tmp_path):
    shutil.copytree(base / "2", tmp_path / "1")
    other = card(classes=("well", "positive"))
    (tmp_path / "1" / CARD_PATH).write_text(other.to_json())
    with pytest.raises(DataError, match="the films have the label 'negative', the model tells"):
        served.predict_version(tmp_path / "1", loaded)


def test_a_version_that_cannot_be_loaded_is_said_to_be_one(base, loaded, tmp_path):
    with pytest.raises(RegistryError, match="cannot read"):
        served.predict_version(tmp_path, loaded)
    shutil.copytree(base / "2", tmp_path / "1")
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"\xff" * 40)
    with pytest.raises(RegistryError, match="holds no model that can be loaded"):
        served.predict_version(tmp_path / "1", loaded)
    (tmp_path / "1" / CARD_PATH).write_text("{}")
    with pytest.raises(RegistryError, match="is not a model card"):
        served.predict_version(tmp_path / "1", loaded)


def test_a_version_that_answers_otherwise_than_its_card_says_is_refused(loaded, tmp_path):
    write_version(tmp_path / "1", Brightness(columns=3))
    with pytest.raises(RegistryError, match=r"answers \[4, 3\] for 4 films, its card has 2"):
        served.predict_version(tmp_path / "1", loaded)
    write_version(tmp_path / "2", Brightness(scale=float("nan")))
    with pytest.raises(RegistryError, match="not finite"):
        served.predict_version(tmp_path / "2", loaded)
    write_version(tmp_path / "3", signature="serving_default")
    with pytest.raises(RegistryError, match=r"no signature 'uint8' \(found: serving_default\)"):
        served.predict_version(tmp_path / "3", loaded)


def test_progress_counts_the_films(base, loaded):
    told: list[tuple[int, int]] = []
    served.predict_version(
        base / "2", loaded, batch_size=3, progress=lambda done, total: told.append((done, total))
    )
    assert told == [(3, 4), (4, 4)]


# ------------------------------------------------------------------------- event files


def test_event_files_hold_every_epoch_and_the_final_figures(base, films, tmp_path):
    loaded = data.load(data.read_cases(films), PROFILE)
    told = evaluate.judge(served.predict_version(base / "2", loaded), threshold=0.5, resamples=20)
    history = [{"number": n, "loss": 1.0 / n, "validation_accuracy": 0.5} for n in (1, 2, 3)]
    evaluate.write_tensorboard(tmp_path / "logs", history, told)
    scalars: dict[str, list[tuple[int, float]]] = {}
    plugins = set()
    (path,) = (tmp_path / "logs").iterdir()
    for event in tf.compat.v1.train.summary_iterator(str(path)):
        for value in event.summary.value:
            if value.metadata.plugin_data.plugin_name:
                plugins.add(value.metadata.plugin_data.plugin_name)
            if value.tag != "test/about":
                point = event.step, float(tf.make_ndarray(value.tensor))
                scalars.setdefault(value.tag, []).append(point)
    assert plugins == {"scalars", "text"}
    assert scalars["epoch/loss"] == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert scalars["test/auc"] == [(3, pytest.approx(told.metrics["auc"]["value"]))]
    assert "epoch/number" not in scalars


def test_event_files_that_cannot_be_written_are_an_error(base, films, tmp_path):
    loaded = data.load(data.read_cases(films), PROFILE)
    told = evaluate.judge(served.predict_version(base / "2", loaded), threshold=0.5, resamples=20)
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainerError, match="cannot write event files"):
        evaluate.write_tensorboard(tmp_path / "file", [], told)


def test_a_version_may_call_its_only_input_what_it_likes(films: Path, tmp_path: Path) -> None:
    """TF Serving does not name it either: a client reads the signature."""
    version = write_tiny_version(tmp_path, 1)
    loaded = data.load(data.read_cases(films), PROFILE)
    answers = served.predict_version(version, loaded)
    assert answers.probabilities.shape == (FILMS, 2)
