"""An exported network: what its signatures answer, and that it is served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dicomnode.config import ServingSettings
from dicomnode.errors import OtherSizeWanted
from dicomnode.imaging.profiles import profile_named
from dicomnode.modelcard import CARD_PATH, Calibration, Code, ModelCard, Threshold
from dicomnode.serving import ServingClient
from trainer import networks
from trainer.errors import TrainerError
from trainer.export import WARMUP_PATH, export

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
LARGE = CARD.model_copy(update={"preprocess_profile": "unit-rgb-299/1", "model_version": 2})


def card_at(temperature: float, **changes: Any) -> ModelCard:
    calibration = Calibration(method="temperature scaling", temperature=temperature)
    return CARD.model_copy(update={"calibration": calibration, **changes})


def films(count: int, profile: str = "unit-rgb-224/1") -> np.ndarray:
    coarse = np.random.default_rng(1).integers(0, 256, (count, 14, 14), dtype=np.uint8)
    return np.stack([profile_named(profile).apply(film) for film in coarse])


def feature_maps(network: networks.Network, images: np.ndarray) -> np.ndarray:
    return network.backbone(images.astype(np.float32) / 255.0, training=False).numpy()


def signatures(folder: Path) -> Any:
    return tf.saved_model.load(str(folder)).signatures


def asked(folder: Path, images: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """What every signature answers about uint8 images."""
    found = signatures(folder)
    unit = images.astype(np.float32) / np.float32(255)
    given = {"serving_default": unit, "uint8": images, "explain": images}
    return {
        name: {key: value.numpy() for key, value in found[name](images=tf.constant(sent)).items()}
        for name, sent in given.items()
    }


# ------------------------------------------------------------------------- what is answered


@pytest.fixture(scope="module")
def xception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 2, which takes 299 x 299."""
    folder = tmp_path_factory.mktemp("exported") / "2"
    network = networks.build("xception", weights="random", classes=2, seed=1)
    export(network, folder, LARGE, films(1, LARGE.preprocess_profile))
    return folder


def test_a_network_of_another_size_has_the_agreed_signatures_at_its_size(xception: Path):
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((xception / "saved_model.pb").read_bytes())
    (graph,) = saved.meta_graphs
    assert list(graph.meta_info_def.tags) == ["serve"]
    shapes = {"serving_default": tf.float32, "uint8": tf.uint8, "explain": tf.uint8}
    for name, dtype in shapes.items():
        signature = graph.signature_def[name]
        assert signature.method_name == "tensorflow/serving/predict"
        assert list(signature.inputs) == ["images"]
        assert signature.inputs["images"].dtype == dtype.as_datatype_enum
        sizes = [dim.size for dim in signature.inputs["images"].tensor_shape.dim]
        assert sizes == [-1, 299, 299, 3]
    answers = asked(xception, films(2, LARGE.preprocess_profile))
    assert {name: set(answer) for name, answer in answers.items()} == {
        "serving_default": {"probabilities"},
        "uint8": {"probabilities"},
        "explain": {"probabilities", "cam", "embedding"},
    }
    assert answers["explain"]["cam"].shape == (2, 10, 10)
    assert answers["explain"]["embedding"].shape == (2, 2048)
    assert ModelCard.from_json((xception / CARD_PATH).read_bytes()) == LARGE


def test_the_warm_up_requests_have_the_size_of_the_network(xception: Path):
    from tensorflow_serving.apis import prediction_log_pb2

    records = tf.data.TFRecordDataset(str(xception / WARMUP_PATH)).as_numpy_iterator()
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records]
    requests = {log.predict_log.request.model_spec.signature_name: log for log in logs}
    assert set(requests) == {"serving_default", "uint8", "explain"}
    for log in requests.values():
        images = tf.make_ndarray(log.predict_log.request.inputs["images"])
        assert images.shape == (1, 299, 299, 3)


@pytest.mark.parametrize(("temperature", "classes"), [(2.5, 3), (0.5, 2)])
def test_every_signature_divides_the_logits_by_the_temperature(
    tmp_path: Path, temperature: float, classes: int
):
    network = networks.build("tiny", weights="random", classes=classes, seed=1)
    for weight in network.head.trainable_weights:
        weight.assign(weight.numpy() * 5.0)
    names = ("negative", "positive", "other")[:classes]
    images = films(3)
    export(network, tmp_path, card_at(temperature, classes=names), images[:1], temperature)

    maps = feature_maps(network, images)
    uncalibrated = network.head(maps).numpy().astype(np.float64)
    powers = uncalibrated ** (1.0 / temperature)
    expected = powers / powers.sum(axis=1, keepdims=True)
    assert np.abs(expected - uncalibrated).max() > 0.02
    answers = asked(tmp_path, images)
    for answer in answers.values():
        assert answer["probabilities"] == pytest.approx(expected, abs=1e-4)
    peaks = answers["explain"]["cam"].max(axis=(1, 2))
    lit = peaks > 0
    assert lit.any()
    assert peaks[lit] == pytest.approx(expected[lit, 1], abs=1e-4)
    assert answers["explain"]["embedding"] == pytest.approx(maps.mean(axis=(1, 2)), abs=1e-3)


def test_the_map_of_the_thesis_head_follows_the_gradient_of_the_positive_class(tmp_path: Path):
    """One hidden unit listens to one channel, so the map is that channel's picture."""
    network = networks.build("vgg16", weights="random", classes=2, seed=1)
    hidden, bias, logits, logit_bias = (np.zeros_like(w) for w in network.head.get_weights())
    images = films(1)
    channels = feature_maps(network, images)[0]
    channel = int(channels[:4, :4].sum(axis=(0, 1)).argmax())
    hidden[channel, 0] = 1.0
    logits[0] = (-1.0, 1.0)
    network.head.set_weights([hidden, bias, logits, logit_bias])
    export(network, tmp_path, CARD, images)
    answer = asked(tmp_path, images)["explain"]
    picture = channels[:, :, channel]
    expected = picture / picture.max() * answer["probabilities"][0, 1]
    assert np.allclose(answer["cam"][0], expected, atol=1e-3)


# ------------------------------------------------------------------------- who serves it


def test_a_fine_tuned_network_and_then_a_larger_one_are_served(
    shared_data: Path, tmp_path: Path, xception: Path
):
    """Our model server warms each up; our client learns that version 2 takes another size."""
    from dicomnode.modelserver.main import ModelServer
    from dicomnode.modelserver.options import Options

    weights = shared_data / "weights" / "mobilenet_v1_0.75_224_notop_imagenet.h5"
    network = networks.build("mobilenet", weights=str(weights), classes=2, seed=1, fine_tune=6)
    assert network.tail is not None
    for weight in network.tail.trainable_weights:  # as if it had been trained
        weight.assign(weight.numpy() * 1.1)
    images, larger = films(2), films(1, LARGE.preprocess_profile)[0]
    base = tmp_path / "covid19"
    export(network, base / "1", card_at(1.7), images[:1], 1.7)

    options = Options(
        model_name="covid19", model_base_path=base, port=0, file_system_poll_wait_seconds=0.1
    )
    with ModelServer(options) as server:
        manager = server.models.get("covid19")
        assert manager is not None
        assert manager.wait_until_available(1, 120)
        client = ServingClient(ServingSettings(targets=[f"127.0.0.1:{server.port}"]))
        try:
            found = client.predict(images[1])
            maps = feature_maps(network, images[1:])
            powers = network.head(maps).numpy()[0].astype(np.float64) ** (1 / 1.7)
            assert found.probabilities == pytest.approx(powers / powers.sum(), abs=1e-4)
            assert found.cam is not None
            assert found.cam.shape == (7, 7)
            with pytest.raises(OtherSizeWanted):
                client.predict(larger)
            xception.rename(base / "2")
            assert manager.wait_until_available(2, 120)
            second = client.predict(larger)
            assert second.model_version == 2
            assert second.cam is not None
            assert second.cam.shape == (10, 10)
        finally:
            client.close()


# ------------------------------------------------------------------------- what is refused


@pytest.fixture(scope="module")
def tiny() -> networks.Network:
    return networks.build("tiny", weights="random", classes=2, seed=1)


@pytest.mark.parametrize(
    ("card", "film", "temperature", "words"),
    [
        (LARGE, films(1), 1.0, "card names .* unit-rgb-299/1, tiny takes unit-rgb-224/1"),
        (CARD, films(2), 1.0, r"warm-up film is uint8 \[2, 224, 224, 3\], expected"),
        (CARD, films(1).astype(np.float32), 1.0, "warm-up film is float32"),
        (CARD, films(1), 1.5, "card says temperature 1, the graph would get 1.5"),
    ],
)
def test_a_card_or_film_of_another_network_is_refused(
    tmp_path: Path, tiny: networks.Network, card, film, temperature, words
):
    with pytest.raises(TrainerError, match=words):
        export(tiny, tmp_path / "1", card, film, temperature)
    assert not (tmp_path / "1").exists()


def test_an_export_that_answers_otherwise_is_refused(
    tmp_path: Path, tiny: networks.Network, monkeypatch
):
    load = tf.saved_model.load

    def of_another_network(folder: str):
        loaded = load(folder)
        for variable in loaded.network_variables:
            variable.assign_add(tf.fill(variable.shape, tf.cast(0.05, variable.dtype)))
        return loaded

    monkeypatch.setattr(tf.saved_model, "load", of_another_network)
    with pytest.raises(TrainerError, match=r"differs by .* nothing was published"):
        export(tiny, tmp_path, CARD, films(1))


def test_an_export_leaves_the_network_as_it_was(tmp_path: Path, tiny: networks.Network):
    before = [*tiny.backbone.get_weights(), *tiny.head.get_weights()]
    export(tiny, tmp_path, CARD, films(1))
    after = [*tiny.backbone.get_weights(), *tiny.head.get_weights()]
    for old, new in zip(before, after, strict=True):
        assert np.array_equal(old, new)
