"""Every network: weights that fit or are refused, and an export with a working map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dicomnode.modelcard import CARD_PATH, Code, ModelCard, Threshold
from trainer import features, networks, train
from trainer.errors import TrainerError, WeightsError
from trainer.export import export

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

CARD = ModelCard(
    model_name="covid19",
    model_version=1,
    network="any",
    classes=("negative", "positive"),
    positive_class="positive",
    finding=Code(value="840539006", scheme_designator="SCT", meaning="COVID-19"),
    preprocess_profile="unit-rgb-224/1",
    threshold=Threshold(value=0.5),
    created_at="2024-01-15T09:30:00+00:00",
)
MOBILENETS = {
    "mobilenet": "mobilenet_v1_0.75_224_notop_imagenet.h5",
    "mobilenet_v2": "mobilenet_v2_0.35_224_notop_imagenet.h5",
}


def films(count: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (count, 14, 14, 1), dtype=np.uint8)
    return np.repeat(np.kron(coarse, np.ones((1, 16, 16, 1), np.uint8)), 3, axis=3)


@pytest.mark.parametrize(
    ("name", "grid", "depth"),
    [("tiny", 14, 64), ("mobilenet", 7, 1024), ("mobilenet_v2", 7, 1280), ("vgg16", 7, 512)],
)
def test_every_network_exports_probabilities_map_and_embedding(tmp_path: Path, name, grid, depth):
    network = networks.build(name, weights="random", classes=2, seed=1)
    images = films(3)
    export(network, tmp_path, CARD, images[:1])
    answer = tf.saved_model.load(str(tmp_path)).signatures["explain"](images=tf.constant(images))
    assert answer["probabilities"].shape == (3, 2)
    assert answer["cam"].shape == (3, grid, grid)
    assert answer["embedding"].shape == (3, depth)
    assert np.isfinite(answer["cam"]).all()
    assert ModelCard.from_json((tmp_path / CARD_PATH).read_bytes()) == CARD


def test_three_classes_export_as_well(tmp_path: Path):
    card = CARD.model_copy(update={"classes": ("negative", "other", "positive")})
    export(networks.build("tiny", weights="random", classes=3, seed=1), tmp_path, card, films(1))
    answer = tf.saved_model.load(str(tmp_path)).signatures["explain"](images=tf.constant(films(2)))
    assert answer["probabilities"].shape == (2, 3)


def test_the_map_of_the_thesis_head_follows_the_gradient_of_the_positive_class(tmp_path: Path):
    """One hidden unit listens to one channel, so the map is that channel's picture."""
    network = networks.build("vgg16", weights="random", classes=2, seed=1)
    hidden, bias, logits, logit_bias = (np.zeros_like(w) for w in network.head.get_weights())
    images = films(1)
    channels = features.compute(network.backbone, images)[0]
    channel = int(channels[:4, :4].sum(axis=(0, 1)).argmax())
    hidden[channel, 0] = 1.0
    logits[0] = (-1.0, 1.0)
    network.head.set_weights([hidden, bias, logits, logit_bias])
    export(network, tmp_path, CARD, images)
    answer = tf.saved_model.load(str(tmp_path)).signatures["explain"](images=tf.constant(images))
    picture = channels[:, :, channel]
    expected = picture / picture.max() * answer["probabilities"].numpy()[0, 1]
    assert np.allclose(answer["cam"].numpy()[0], expected, atol=1e-3)


@pytest.mark.parametrize("name", MOBILENETS)
def test_real_weights_load_at_the_width_that_the_file_has(shared_data: Path, name):
    path = shared_data / "weights" / MOBILENETS[name]
    network = networks.build(name, weights=str(path), classes=2, seed=1)
    random = networks.build(
        name, weights="random", classes=2, seed=1, alpha=0.75 if name == "mobilenet" else 0.35
    )
    assert network.backbone.count_params() == random.backbone.count_params()
    assert not np.allclose(network.backbone.get_weights()[0], random.backbone.get_weights()[0])


def test_vgg16_loads_a_weights_file(tmp_path: Path):
    keras.utils.set_random_seed(7)
    other = keras.applications.VGG16(weights=None, include_top=False)
    path = tmp_path / "vgg16.weights.h5"
    other.save_weights(path)
    network = networks.build("vgg16", weights=str(path), classes=2, seed=1)
    for loaded, saved in zip(network.backbone.get_weights(), other.get_weights(), strict=True):
        assert np.array_equal(loaded, saved)


def test_weights_of_another_network_are_refused(shared_data: Path):
    path = shared_data / "weights" / MOBILENETS["mobilenet"]
    with pytest.raises(WeightsError, match="holds 1832976 parameters; mobilenet_v2"):
        networks.build("mobilenet_v2", weights=str(path), classes=2, seed=1)
    with pytest.raises(WeightsError, match="does not hold the weights of vgg16"):
        networks.build("vgg16", weights=str(path), classes=2, seed=1)


@pytest.mark.parametrize("name", ["mobilenet", "vgg16"])
def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path, name):
    path = tmp_path / "weights.h5"
    path.write_bytes(b"not HDF5")
    with pytest.raises(WeightsError, match="is no weights file"):
        networks.build(name, weights=str(path), classes=2, seed=1)


def test_an_export_that_answers_otherwise_is_refused(tmp_path: Path, monkeypatch):
    network = networks.build("tiny", weights="random", classes=2, seed=1)
    load = tf.saved_model.load

    def of_another_network(folder: str):
        loaded = load(folder)
        for variable in loaded.network_variables:
            variable.assign_add(tf.fill(variable.shape, tf.cast(0.05, variable.dtype)))
        return loaded

    monkeypatch.setattr(tf.saved_model, "load", of_another_network)
    with pytest.raises(TrainerError, match=r"differs by .* nothing was published"):
        export(network, tmp_path, CARD, films(1))


def test_training_ends_with_the_weights_of_the_best_epoch():
    network = networks.build("mobilenet", weights="random", classes=2, seed=1, alpha=0.25)
    rng = np.random.default_rng(1)
    labels = np.arange(24) % 2
    maps = rng.normal(size=(24, *network.head.input_shape[1:])).astype(np.float32)
    maps[labels == 1, :, :, 0] += 1.0
    part = train.Part(inputs=maps[:16], labels=labels[:16])
    held = train.Part(inputs=maps[16:], labels=labels[16:])
    epochs = train.train(
        network.head, part, held, epochs=8, batch_size=4, learning_rate=0.02, seed=1,
        decay="thesis", augment=False,
    )  # fmt: skip
    chosen = train.predict(network.head, held.inputs)[np.arange(8), held.labels]
    loss = -np.log(np.maximum(chosen, 1e-7)).mean()
    assert loss == pytest.approx(min(epoch.validation_loss for epoch in epochs), rel=1e-4)


def test_a_frozen_backbone_keeps_its_weights_through_an_export(tmp_path: Path):
    network = networks.build("mobilenet", weights="random", classes=2, seed=1, alpha=0.25)
    assert network.frozen
    before = network.backbone.get_weights()
    export(network, tmp_path, CARD, films(1))
    for old, new in zip(before, network.backbone.get_weights(), strict=True):
        assert np.array_equal(old, new)
