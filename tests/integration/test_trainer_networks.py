"""Every network: its parts compose to the original, its weights fit or are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainer import networks, train
from trainer.errors import UsageError, WeightsError
from trainer.networks.catalogue import APPLICATIONS, IMAGENET_DEVIATION, IMAGENET_MEAN
from trainer.networks.cut import cuts

keras = pytest.importorskip("keras")
h5py = pytest.importorskip("h5py")

MOBILENETS = {
    "mobilenet": "mobilenet_v1_0.75_224_notop_imagenet.h5",
    "mobilenet_v2": "mobilenet_v2_0.35_224_notop_imagenet.h5",
}
ALPHAS = {"mobilenet": 0.25, "mobilenet_v2": 0.35}
"""The narrowest, so that random ones are built fast."""


def build(name: str, **options: Any) -> networks.Network:
    options = {"weights": "random", "classes": 2, "seed": 1} | options
    if options["weights"] == "random":
        options.setdefault("alpha", ALPHAS.get(name))
    return networks.build(name, **options)


def unit_images(network: networks.Network) -> np.ndarray:
    shape = (1, *network.backbone.input_shape[1:])
    return np.random.default_rng(1).random(shape).astype(np.float32)


def original(name: str, images: np.ndarray) -> np.ndarray:
    """What keras.applications makes of the images, scaled by its own `preprocess_input`."""
    keras.utils.set_random_seed(1)
    application = APPLICATIONS[name]
    width = {"alpha": ALPHAS[name]} if name in ALPHAS else {}
    model = getattr(keras.applications, application.constructor)(
        weights=None, include_top=False, input_shape=images.shape[1:], **width
    )
    if name != "vgg16":
        module = name.removesuffix("_b0").removesuffix("121")
        images = getattr(keras.applications, module).preprocess_input(images * 255.0)
    return model(images, training=False).numpy()


# ------------------------------------------------------------------------- base, tail, head


@pytest.mark.parametrize(
    ("name", "wanted", "layers"),
    [
        ("vgg16", 4, 4),
        ("mobilenet", 6, 6),
        ("mobilenet_v2", 24, 29),  # inside a residual block: back to the one before
        ("efficientnet_b0", 6, 10),  # inside squeeze and excite
        ("xception", 7, 16),
        ("densenet121", 10, 16),  # inside a dense block
    ],
)
def test_base_and_tail_together_are_the_original_network(name, wanted, layers):
    network = build(name, fine_tune=wanted)
    images = unit_images(network)
    whole = build(name)
    assert network.tail_layers == layers
    assert network.base is not None
    assert network.tail is not None
    at_cut = network.base(images)
    feature_map = whole.backbone(images).numpy()
    assert feature_map.std() > 0
    assert np.array_equal(network.tail(at_cut).numpy(), feature_map)
    assert np.array_equal(network.backbone(images).numpy(), feature_map)
    assert np.array_equal(network.trainable(at_cut).numpy(), whole.head(feature_map).numpy())
    expected = original(name, images)
    assert np.allclose(feature_map / expected.std(), expected / expected.std(), atol=1e-3)


@pytest.mark.parametrize("name", ["mobilenet_v2", "tiny"])
def test_everything_can_be_trained_and_then_there_is_no_base(name):
    layers = len(build(name).backbone.layers)
    whole = build(name)
    if name != "tiny":
        layers = len(whole.backbone.layers[-1].layers) - 1
        whole = build(name, fine_tune=layers)
    assert whole.base is None
    assert whole.weights_sha256 == ""
    assert not whole.frozen
    images = unit_images(whole)
    assert np.array_equal(whole.backbone(images).numpy(), build(name).backbone(images).numpy())
    assert whole.trainable(images).shape == (1, 2)


def test_the_tail_trains_without_statistics_of_its_own_and_the_base_not_at_all():
    network = build("mobilenet", fine_tune=6)
    assert network.base is not None
    assert network.tail is not None
    assert network.tail_rate == 0.1
    assert network.base.trainable_weights == []
    trained = {variable.path.split("/")[0] for variable in network.tail.trainable_weights}
    assert trained == {"conv_dw_13", "conv_pw_13"}
    maps = np.random.default_rng(1).normal(3.0, 2.0, (4, *network.tail.input_shape[1:]))
    before = [weight.numpy() for weight in network.tail.non_trainable_weights]
    in_training = network.tail(maps, training=True).numpy()
    assert np.array_equal(in_training, network.tail(maps, training=False).numpy())
    for old, new in zip(before, network.tail.non_trainable_weights, strict=True):
        assert np.array_equal(old, new.numpy())


def test_a_tail_drops_nothing_at_random_that_workers_would_draw_apart():
    network = build("efficientnet_b0", fine_tune=30)
    assert network.tail is not None
    maps = np.random.default_rng(1).normal(size=(2, *network.tail.input_shape[1:]))
    assert any(isinstance(layer, keras.layers.Dropout) for layer in network.tail.layers)
    assert np.array_equal(network.tail(maps, training=True), network.tail(maps, training=False))


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (19, "vgg16 has 18 layers; --fine-tune 18 trains all"),
        (1, "the last 1 layers of vgg16 have no weights .* smallest number that does is 2"),
    ],
)
def test_a_number_of_layers_that_cannot_be_tuned_is_refused(wanted, words):
    with pytest.raises(UsageError, match=words):
        build("vgg16", fine_tune=wanted)


def test_a_cut_is_where_one_tensor_carries_everything():
    """in -> a -> (b -> c) + a -> d, and e beside the sum: only a, the sum and what follows."""
    layers = keras.layers
    start = keras.Input((4,))
    a = layers.Dense(4, name="a")(start)
    c = layers.Dense(4, name="c")(layers.Dense(4, name="b")(a))
    total = layers.Add(name="sum")([a, c])
    joined = layers.Concatenate(name="joined")([layers.Dense(4, name="d")(total), total])
    model = keras.Model(start, layers.Dense(2, name="end")(joined))
    names = [model.operations[place].name for place in cuts(model.operations)]
    assert names[1:] == ["a", "sum", "joined", "end"]


# ------------------------------------------------------------------------- heads


@pytest.mark.parametrize("head", ["thesis", "pooled"])
def test_the_weights_of_a_head_come_from_the_seed_alone(head):
    """Whatever was drawn before: here another backbone, which drew its own."""

    def logits(name: str, **options: Any) -> np.ndarray:
        return build(name, head=head, **options).head.get_layer("logits").get_weights()[0]

    first = logits("vgg16")
    assert first.shape == (64, 2)
    assert np.array_equal(first, logits("mobilenet"))
    assert not np.array_equal(first, logits("vgg16", seed=2))


def test_the_pooled_head_reads_the_whole_map_and_the_thesis_head_its_corner():
    """AveragePooling 4 x 4 without padding leaves three rows and columns of seven unread."""
    shape = (1, *build("mobilenet").head.input_shape[1:])
    maps = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    changed = maps.copy()
    changed[:, 4:, 4:, : shape[3] // 2] += 50.0
    pooled, thesis = build("mobilenet").head, build("mobilenet", head="thesis").head
    assert not np.allclose(pooled(maps), pooled(changed))
    assert np.array_equal(thesis(maps), thesis(changed))


def test_the_thesis_head_has_the_layers_of_the_thesis():
    head = build("vgg16").head
    kinds = [type(layer).__name__ for layer in head.layers[1:]]
    assert kinds == ["AveragePooling2D", "Flatten", "Dense", "SharedDropout", "Dense", "Softmax"]
    assert head.layers[1].pool_size == (4, 4)
    assert [layer.units for layer in head.layers if hasattr(layer, "units")] == [64, 2]
    assert head.layers[4].rate == 0.5


def test_an_unknown_head_is_refused():
    with pytest.raises(UsageError, match="thesis, pooled, small, got 'big'"):
        build("tiny", head="big")


def test_training_ends_with_the_weights_of_the_best_epoch():
    network = build("mobilenet")
    rng = np.random.default_rng(1)
    labels = np.arange(24) % 2
    maps = rng.normal(size=(24, *network.head.input_shape[1:])).astype(np.float32)
    maps[labels == 1, :, :, 0] += 1.0
    held = train.Part(inputs=maps[16:], labels=labels[16:])
    epochs = train.train(
        network.trainable,
        train.Part(inputs=maps[:16], labels=labels[:16]),
        held,
        epochs=8,
        batch_size=4,
        learning_rate=0.02,
        seed=1,
        decay="thesis",
    )
    losses = [epoch.validation_loss for epoch in epochs]
    assert losses[-1] > min(losses), "the last epoch must not be the best, or nothing is shown"
    chosen = train.predict(network.trainable, held.inputs)[np.arange(8), held.labels]
    assert -np.log(np.maximum(chosen, 1e-7)).mean() == pytest.approx(min(losses), rel=1e-4)


# ------------------------------------------------------------------------- weights


@pytest.mark.parametrize("name", MOBILENETS)
def test_real_weights_load_at_the_width_that_the_file_has(shared_data: Path, name):
    path = shared_data / "weights" / MOBILENETS[name]
    network = build(name, weights=str(path))
    random = build(name, alpha=0.75 if name == "mobilenet" else 0.35)
    assert network.backbone.count_params() == random.backbone.count_params()
    assert not np.allclose(network.backbone.get_weights()[0], random.backbone.get_weights()[0])
    assert network.weights_sha256 != random.weights_sha256


def test_the_name_of_a_base_is_its_weights_and_its_cut():
    """The key of the cache of features: equal computations share it, others never."""
    digests = [
        build("mobilenet").weights_sha256,
        build("mobilenet", head="thesis", classes=3).weights_sha256,
        build("mobilenet", seed=2).weights_sha256,
        build("mobilenet", fine_tune=3).weights_sha256,
        build("mobilenet", alpha=0.5).weights_sha256,
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4
    relu, normalised = (build("vgg16", fine_tune=n).weights_sha256 for n in (4, 5))
    assert relu != normalised


@pytest.mark.parametrize("form", ["vgg16.weights.h5", "vgg16.h5"])
def test_vgg16_loads_a_weights_file_of_either_form(tmp_path: Path, form):
    keras.utils.set_random_seed(7)
    other = keras.applications.VGG16(weights=None, include_top=False)
    path = tmp_path / form
    if form.endswith(".weights.h5"):
        other.save_weights(path)
    else:
        other.save(path)
    network = build("vgg16", weights=str(path))
    for loaded, saved in zip(network.backbone.get_weights(), other.get_weights(), strict=True):
        assert np.array_equal(loaded, saved)


def test_efficientnet_from_a_file_is_scaled_as_the_one_that_keras_downloads(tmp_path: Path):
    """Keras divides by the deviation twice, but only in a network that it downloads itself."""
    images = np.random.default_rng(1).random((1, 224, 224, 3)).astype(np.float32)
    other = keras.applications.EfficientNetB0(weights=None, include_top=False)
    normalisation = next(
        layer for layer in other.layers if isinstance(layer, keras.layers.Normalization)
    )
    deviation = np.array(IMAGENET_DEVIATION, np.float32)
    normalisation.set_weights([np.array(IMAGENET_MEAN), deviation**2, np.array(0)])
    other.save_weights(tmp_path / "published.weights.h5")
    network = build("efficientnet_b0", weights=str(tmp_path / "published.weights.h5"))
    place = other.layers.index(normalisation)
    rest = keras.Model(other.layers[place + 1].input, other.output)
    expected = rest((images - np.array(IMAGENET_MEAN)) / deviation**1.5, training=False).numpy()
    found = network.backbone(images).numpy()
    assert np.allclose(found / expected.std(), expected / expected.std(), atol=1e-3)


def test_a_copy_of_efficientnet_with_its_weights_computes_the_same():
    """As bfloat16 features and workers make one; Keras's normalisation would not come along."""
    network = build("efficientnet_b0")
    assert network.base is not None

    def scaling(layer: Any) -> list[Any]:
        return [
            (inner.scale, inner.offset)
            for inner in layer._flatten_layers()
            if isinstance(inner, keras.layers.Rescaling)
        ]

    assert len(scaling(network.base)) == 3, "to 0..255, by 1/255, and by mean and deviation"
    assert not any(
        isinstance(layer, keras.layers.Normalization) for layer in network.base._flatten_layers()
    )
    copy = keras.models.clone_model(network.base)
    copy.set_weights(network.base.get_weights())
    images = unit_images(network)
    expected = network.base(images, training=False).numpy()
    assert np.array_equal(copy(images, training=False).numpy(), expected)


def test_weights_of_another_network_are_refused(shared_data: Path):
    path = shared_data / "weights" / MOBILENETS["mobilenet"]
    with pytest.raises(WeightsError, match="holds 1832976 parameters; mobilenet_v2"):
        build("mobilenet_v2", weights=str(path))
    with pytest.raises(
        WeightsError, match=r"of vgg16 without top: it has 1,832,976 .* expected 14,714,688"
    ):
        build("vgg16", weights=str(path))


def test_weights_with_top_of_another_width_or_with_other_names_are_refused(tmp_path: Path):
    with_top = tmp_path / "top.weights.h5"
    keras.applications.MobileNet(weights=None, alpha=0.25, classes=2).save_weights(with_top)
    with pytest.raises(WeightsError, match="include_top=False"):
        build("mobilenet", weights=str(with_top), alpha=0.25)
    with pytest.raises(WeightsError, match="expected 829,536"):
        build("mobilenet", weights=str(with_top), alpha=0.5)
    for name in ("strange.h5", "strange.weights.h5"):
        with h5py.File(tmp_path / name, "w") as file:
            file["numbers"] = np.zeros(218_544, np.float32)
        with pytest.raises(WeightsError, match="does not hold the weights of mobilenet"):
            build("mobilenet", weights=str(tmp_path / name))


def test_a_file_with_a_layer_of_another_name_is_refused(tmp_path: Path):
    """As many numbers as expected, but some under a name that the network does not have."""
    path = tmp_path / "renamed.weights.h5"
    keras.applications.MobileNet(
        weights=None, include_top=False, alpha=0.25, input_shape=(224, 224, 3)
    ).save_weights(path)
    with h5py.File(path, "r+") as file:
        file.move("layers/conv2d_3", "layers/renamed")
    with pytest.raises(WeightsError, match="does not hold the weights of mobilenet"):
        build("mobilenet", weights=str(path))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("weights.h5", b"not HDF5", "is no weights file"),
        ("weights.h5", b"", "is no weights file"),
        ("weights.ckpt", b"", "ending in .h5 or .weights.h5"),
    ],
)
@pytest.mark.parametrize("network", ["mobilenet", "vgg16"])
def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path, name, content, words, network):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=words):
        build(network, weights=str(path))


def test_weights_that_cannot_be_downloaded_say_what_to_do_instead(monkeypatch):
    def unreachable(*_: object, **__: object) -> None:
        raise Exception("URL fetch failure")  # as keras.utils.get_file does

    monkeypatch.setattr(keras.applications, "VGG16", unreachable)
    with pytest.raises(WeightsError, match="pass it as --weights FILE"):
        build("vgg16", weights="imagenet")
