"""`trainer fit` from a folder of phantoms to a version that a model server can serve."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dicomnode.imaging import preprocess, reading
from dicomnode.modelcard import ModelCard
from dicomnode.testing.phantoms import (
    draw_phantom,
    part10_bytes,
    phantom_dataset,
    write_training_folder,
)
from tests.conftest import require_program
from trainer import registry
from trainer.export import WARMUP_PATH

tf = pytest.importorskip("tensorflow")

TINY = ("--network", "tiny")
PROFILE = preprocess.profile_named("unit-rgb-224/1")


def fit(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trainer", "fit", "--progress", "json", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    write_training_folder(folder, 70, 1, 256)
    return folder


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("few")
    write_training_folder(folder, 15, 1, 64)
    return folder


@pytest.fixture(scope="module")
def run(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """The model directory after one run, and the events that the run told."""
    base = tmp_path_factory.mktemp("models") / "covid19"
    done = fit("--data", str(phantoms), "--out", str(base), *TINY, "--epochs", "20")
    assert done.returncode == 0, done.stderr
    return base, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def card(run: tuple[Path, list[Any]]) -> ModelCard:
    return registry.read_card(run[0], 1)


@pytest.fixture(scope="module")
def signatures(run: tuple[Path, list[Any]]) -> Any:
    return tf.saved_model.load(str(run[0] / "1")).signatures


def node_tensor(seed: int, positive: bool, photometric: str) -> np.ndarray:
    """A fresh 1024 x 1024 phantom, as bytes through the node's imaging."""
    ds = phantom_dataset(seed, positive, photometric_interpretation=photometric)
    ds = reading.read_instance(io.BytesIO(part10_bytes(ds)))
    prepared = preprocess.prepare(ds, PROFILE, maximum_pixels=10**7)
    assert isinstance(prepared.tensor, np.ndarray)
    return prepared.tensor


@pytest.fixture(scope="module")
def fresh() -> tuple[np.ndarray, np.ndarray]:
    """Twelve films of unseen phantoms, and which are positive."""
    truth = np.arange(12) % 2 == 0
    photometric = ("MONOCHROME1", "MONOCHROME2")
    films = [node_tensor(500 + n, bool(truth[n]), photometric[n // 2 % 2]) for n in range(12)]
    return np.stack(films), truth


def test_a_run_tells_its_steps_and_publishes_version_1(run):
    base, events = run
    names = [event["event"] for event in events if event["event"] != "progress"]
    assert names == ["films", "network", *["epoch"] * 20, "evaluated", "published"]
    report = base.with_name("covid19-reports") / "1" / "report.html"
    told = {"version": 1, "path": str(base / "1"), "report": str(report)}
    assert events[-1] == {"event": "published", **told}
    assert report.is_file()
    assert registry.versions(base) == (1,)


def test_progress_is_told_with_what_is_done_and_due(run):
    told = [event for event in run[1] if event["event"] == "progress"]
    assert told[-1]["phase"] == "films"
    assert told[-1]["done"] == told[-1]["total"] == 140
    assert told[-1]["eta_seconds"] == 0.0


def test_the_version_says_which_films_it_has_seen_and_nothing_else_about_them(run):
    path = run[0] / "1" / registry.TRAINING_MANIFEST_PATH
    assert path.read_text().splitlines()[0] == "sha256,label,part"
    films = registry.used_films(run[0] / "1")
    assert films is not None
    parts = [film.part for film in films.values()]
    assert [parts.count(part) for part in ("training", "validation", "test")] == [90, 22, 28]


def test_the_directory_has_what_a_server_and_the_node_look_for(run):
    version = run[0] / "1"
    for name in ("saved_model.pb", "variables/variables.index", "assets.extra/model_card.json"):
        assert (version / name).is_file()
    assert not list(run[0].glob(".staging-*"))


def test_the_card_says_how_the_model_came_about(card):
    assert card.model_name == "covid19"
    assert card.classes == ("negative", "positive")
    assert card.finding.value == "840539006"
    assert card.preprocess_profile == "unit-rgb-224/1"
    assert "Youden" in card.threshold.rule
    assert card.metrics["films"] == {"training": 90, "validation": 22, "test": 28}
    assert card.metrics["sensitivity"]["cases"] == 14
    assert card.per_source[0]["source"] == "phantoms"
    assert "phantoms" in card.notes
    assert len(card.data_manifest_sha256) == 64
    assert "tensorflow" in card.libraries


def test_the_three_signatures_have_the_agreed_names_types_and_shapes(signatures):
    assert set(signatures) == {"serving_default", "uint8", "explain"}
    inputs = {name: signatures[name].structured_input_signature[1]["images"] for name in signatures}
    assert inputs["serving_default"].dtype == tf.float32
    assert inputs["uint8"].dtype == inputs["explain"].dtype == tf.uint8
    assert all(spec.shape.as_list() == [None, 224, 224, 3] for spec in inputs.values())
    outputs = {name: set(signatures[name].structured_outputs) for name in signatures}
    assert outputs["serving_default"] == outputs["uint8"] == {"probabilities"}
    assert outputs["explain"] == {"probabilities", "cam", "embedding"}


@pytest.mark.parametrize("count", [1, 3, 12])
def test_every_signature_gives_the_same_probabilities_at_any_batch_size(signatures, fresh, count):
    films = fresh[0][:count]
    unit = films.astype(np.float32) / np.float32(255)
    answers = [
        signatures["serving_default"](images=tf.constant(unit))["probabilities"].numpy(),
        signatures["uint8"](images=tf.constant(films))["probabilities"].numpy(),
        signatures["explain"](images=tf.constant(films))["probabilities"].numpy(),
    ]
    single = [
        signatures["uint8"](images=tf.constant(film[np.newaxis]))["probabilities"].numpy()[0]
        for film in films
    ]
    for answer in answers:
        assert answer.shape == (count, 2)
        assert answer.dtype == np.float32
        assert np.allclose(answer, single, atol=1e-4)


def test_fresh_phantoms_are_told_apart_through_the_nodes_imaging(signatures, card, fresh):
    films, truth = fresh
    answer = signatures["explain"](images=tf.constant(films))["probabilities"].numpy()
    called = answer[:, card.positive_index] >= card.threshold.value
    assert (called == truth).sum() >= 11


def test_the_map_lights_up_at_the_opacities_and_stays_dark_without(signatures, fresh):
    films, truth = fresh
    answer = signatures["explain"](images=tf.constant(films))
    cams, probabilities = answer["cam"].numpy(), answer["probabilities"].numpy()[:, 1]
    assert cams.min() >= 0.0
    assert cams.max() <= 1.0
    assert np.allclose(cams.max(axis=(1, 2)), probabilities, atol=1e-4)
    gains = []
    for number in np.flatnonzero(truth):
        opacities = draw_phantom(500 + int(number), True, 1024, 1024).opacities
        size = cams.shape[:0:-1]
        inside = np.array(Image.fromarray(opacities).resize(size, Image.Resampling.BOX)) > 0.15
        gains.append(cams[number][inside].mean() / cams[number].mean())
    assert np.mean(gains) > 2.0


def test_the_embedding_tells_positive_from_negative(signatures, fresh):
    films, truth = fresh
    embedding = signatures["explain"](images=tf.constant(films))["embedding"].numpy()
    assert embedding.shape == (12, 64)
    between = np.linalg.norm(embedding[truth].mean(0) - embedding[~truth].mean(0))
    assert between > 0.1


def test_warm_up_requests_are_prediction_logs_for_every_signature(run, signatures):
    from tensorflow_serving.apis import prediction_log_pb2

    records = list(tf.data.TFRecordDataset(str(run[0] / "1" / WARMUP_PATH)).as_numpy_iterator())
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records]
    requests = [log.predict_log.request for log in logs]
    assert {r.model_spec.signature_name for r in requests} == set(signatures)
    for request in requests:
        assert request.model_spec.name == "covid19"
        images = tf.make_ndarray(request.inputs["images"])
        answer = signatures[request.model_spec.signature_name](images=tf.constant(images))
        assert answer["probabilities"].shape == (1, 2)


def test_another_run_publishes_the_next_version_and_names_its_parent(few, tmp_path):
    base = tmp_path / "covid19"
    for _ in range(2):
        options = (*TINY, "--epochs", "1", "--model-name", "chest")
        done = fit("--data", str(few), "--out", str(base), *options)
        assert done.returncode == 0, done.stderr
    assert registry.versions(base) == (1, 2)
    first, second = (registry.read_card(base, number) for number in (1, 2))
    assert (first.parent_version, second.parent_version) == (None, 1)
    assert second.model_name == "chest"
    assert first.data_manifest_sha256 == second.data_manifest_sha256
    assert first.metrics == second.metrics, "the same seed and data give the same model"


def test_a_frozen_backbone_learns_from_real_films_and_reports_each_source(shared_data, tmp_path):
    base = tmp_path / "covid19"
    weights = shared_data / "weights" / "mobilenet_v2_0.35_224_notop_imagenet.h5"
    done = fit(
        *("--data", str(shared_data / "cxr"), "--out", str(base)),
        *("--network", "mobilenet_v2", "--weights", str(weights), "--epochs", "10"),
        *("--minimum-sensitivity", "0.95"),
    )
    assert done.returncode == 0, done.stderr
    card = registry.read_card(base, 1)
    assert card.metrics["auc"]["value"] > 0.7
    assert "best specificity with sensitivity >= 0.95" in card.threshold.rule
    rows = {row["source"]: row for row in card.per_source}
    assert len(rows) > 2
    assert any(row["auc"] is None for row in rows.values()), "a source with one label has no AUC"
    assert sum(row["positives"] for row in rows.values()) == card.metrics["sensitivity"]["cases"]


@pytest.fixture(scope="module")
def mobilenet(shared_data: Path) -> tuple[str, ...]:
    weights = shared_data / "weights" / "mobilenet_v2_0.35_224_notop_imagenet.h5"
    return ("--network", "mobilenet_v2", "--weights", str(weights))


def test_the_recipe_thesis_parts_by_film_keeps_the_last_epoch_and_half_as_threshold(
    few: Path, mobilenet: tuple[str, ...], tmp_path: Path
):
    base = tmp_path / "covid19"
    options = ("--recipe", "thesis", *mobilenet, "--epochs", "3")
    done = fit("--data", str(few), "--out", str(base), *options)
    assert done.returncode == 0, done.stderr
    card = registry.read_card(base, 1)
    assert card.metrics["films"] == {"training": 24, "validation": 0, "test": 6}
    assert (card.threshold.value, card.calibration.temperature) == (0.5, 1.0)
    assert card.threshold.rule == "fixed at 0.5 (recipe thesis)"
    assert "a patient may be in both parts" in card.notes


def test_fine_tuning_with_augmentation_publishes_a_network_that_answers(
    few: Path, mobilenet: tuple[str, ...], tmp_path: Path
):
    """The base runs in every step; a film that cannot be read is listed and left out."""
    data = tmp_path / "data"
    shutil.copytree(few, data)
    (data / "manifest.csv").unlink()
    (data / "negative" / "broken.png").write_bytes(b"not a picture")
    base = tmp_path / "covid19"
    options = (*mobilenet, "--fine-tune", "6", "--augment", "--epochs", "2")
    done = fit("--data", str(data), "--out", str(base), *options)
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    skipped = [event for event in events if event["event"] == "skipped"]
    assert [event["name"] for event in skipped] == ["negative/broken.png"]
    features = next(event for event in events if event["event"] == "features")
    card = registry.read_card(base, 1)
    judged = card.metrics["films"]["validation"] + card.metrics["films"]["test"]
    assert features["films"] == judged, "only the films that are judged become features"
    strict = fit("--data", str(data), "--out", str(base), *options, "--strict")
    assert strict.returncode == 1
    assert strict.stderr.splitlines()[-1].startswith("data: negative/broken.png cannot be used")
    assert registry.versions(base) == (1,)


@pytest.mark.parametrize(("full", "size"), [("models", "200k"), ("work", "4m")])
def test_a_full_disk_is_one_clear_error_and_publishes_nothing(
    few: Path, mobilenet: tuple[str, ...], tmp_path: Path, full: str, size: str
):
    """On a small file system of its own, in a mount namespace."""
    unshare = require_program("unshare")
    for name in ("models", "work"):
        (tmp_path / name).mkdir()
    command = [
        *(sys.executable, "-m", "trainer", "fit", "--data", str(few), *mobilenet),
        *("--epochs", "1", "--out", str(tmp_path / "models"), "--work", str(tmp_path / "work")),
        *("--report", str(tmp_path / "reports")),
    ]
    mount = f'mount -t tmpfs -o size={size} tmpfs "{tmp_path / full}"'
    script = f'{mount} && shift && exec "$@"; exit 9'
    isolated = [unshare, "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", "-"]
    done = subprocess.run(
        [*isolated, *command], capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode == 9 or "unshare" in done.stderr:
        pytest.skip("this machine allows no mount namespace of one's own")
    assert done.returncode == 1, done.stderr
    error = done.stderr.splitlines()[-1]
    assert error.startswith("storage_full: no space is left under "), done.stderr
    assert str(tmp_path / full) in error
    assert "Traceback" not in done.stderr
    assert registry.versions(tmp_path / "models") == ()
    assert not list((tmp_path / "models").glob(".staging-*"))
